# Predictions of mgcv, with standard errors, for the models and new rows that scripts/reference/prediction.py wrote: per
# predictor and for the response. "new level": variance of a random effect, standard error without it.
suppressMessages(library(mgcv))
cat("mgcv", as.character(packageVersion("mgcv")), "\n")
folder <- commandArgs(TRUE)[1]
control <- gam.control(newton = list(conv.tol = 1e-10), epsilon = 1e-12)
fits <- list(
  sleepstudy = function(d, k) gam(Reaction ~ s(Days, bs = "ps", k = 8) + s(Subject, bs = "re"), data = d,
    knots = list(Days = k$mean), method = "REML", control = control),
  epil = function(d, k) gam(y ~ trt + s(lbase, bs = "ps", k = 8) + s(subject, bs = "re"), data = d, family = poisson,
    knots = list(lbase = k$mean), method = "REML", control = control),
  bacteria = function(d, k) gam(y ~ trt + s(week, bs = "ps", k = 5) + s(ID, bs = "re"), data = d, family = binomial,
    knots = list(week = k$mean), method = "REML", control = control),
  mcycle = function(d, k) { # one column a smooth, so that each has its knots
    gam(list(accel ~ s(times, bs = "ps", k = 15), ~ s(times2, bs = "ps", k = 6)), data = d, family = gaulss(b = 0),
      knots = list(times = k$mean, times2 = k$scale), method = "REML", control = control)
  })
show <- function(what, values) cat(sprintf("  %s: %s\n", what, paste(sprintf("%.9g", values), collapse = ", ")))
for (name in names(fits)) {
  here <- file.path(folder, name)
  levels <- c(Subject = "factor", subject = "factor", ID = "factor", trt = "factor")
  d <- read.csv(file.path(here, "data.csv"), stringsAsFactors = TRUE)
  new <- read.csv(file.path(here, "new.csv"), stringsAsFactors = FALSE)
  for (column in intersect(names(levels), names(d))) {
    d[[column]] <- factor(d[[column]])
    new[[column]] <- factor(new[[column]], levels(d[[column]]))
  }
  if (name == "mcycle") { d$times2 <- d$times; new$times2 <- new$times }
  files <- list.files(here, "knots")
  knots <- lapply(file.path(here, files), scan, quiet = TRUE)
  names(knots) <- sub("knots-(.*).txt", "\\1", files)
  m <- fits[[name]](d, knots)
  cat(name, m$outer.info$conv, sprintf("%.9g", m$gcv.ubre), "\n")
  link <- predict(m, new, se.fit = TRUE); response <- predict(m, new, se.fit = TRUE, type = "response")
  for (k in seq_len(NCOL(link$fit))) {
    show(paste("predictor", k), as.matrix(link$fit)[, k]); show("  se", as.matrix(link$se.fit)[, k])
  }
  show("response", as.matrix(response$fit)[, 1]); show("  se", as.matrix(response$se.fit)[, 1])
  re <- Filter(function(s) inherits(s, "random.effect"), m$smooth)
  if (length(re)) {
    label <- re[[1]]$label
    without <- predict(m, new, se.fit = TRUE, exclude = label)
    show("new level", c(m$sig2 / m$sp[[label]])); show("  fit", without$fit); show("  se", without$se.fit)
  }
}
