# REML of mgcv's nb() and Gamma(link = log) on the designs and penalties that scripts/reference/nuisance.py wrote:
# score, lambda and edf per penalty, log theta or log dispersion. mgcv's lambda of a Gamma is relative to the dispersion.
suppressMessages(library(mgcv))
cat("mgcv", as.character(packageVersion("mgcv")), "\n")
folder <- commandArgs(TRUE)[1]
for (name in list.files(folder)) {
  here <- file.path(folder, name)
  kind <- readLines(file.path(here, "family.txt"))
  d <- list(y = scan(file.path(here, "y.txt"), quiet = TRUE))
  pen <- list(); x <- c()
  for (b in 0:9) {
    f <- file.path(here, paste0("X", b, ".txt"))
    if (!file.exists(f)) break
    x <- c(x, paste0("X", b)); d[[paste0("X", b)]] <- as.matrix(read.table(f))
    f <- file.path(here, paste0("S", b, ".txt"))
    if (file.exists(f)) { s <- scan(f, quiet = TRUE); pen[[paste0("X", b)]] <- list(diag(s, nrow = length(s))) }
  }
  family <- if (kind == "Gamma") Gamma(link = log) else nb(link = log)
  m <- gam(as.formula(paste("y ~", paste(x, collapse = " + "), "- 1")), data = d, paraPen = pen, family = family,
           method = "REML", control = gam.control(scalePenalty = FALSE, newton = list(conv.tol = 1e-10), epsilon = 1e-12))
  phi <- if (kind == "Gamma") m$reml.scale else 1
  nuisance <- if (kind == "Gamma") log(m$reml.scale) else m$family$getTheta()
  # mgcv's own edf are of the expected Hessian. These are of the observed one, as in the score.
  mu <- m$fitted.values
  w <- if (kind == "Gamma") d$y / mu / phi else (d$y + exp(nuisance)) * exp(nuisance) * mu / (exp(nuisance) + mu)^2
  X <- do.call(cbind, d[x]); H <- crossprod(X, w * X); S <- list(); first <- 1
  for (b in x) {
    columns <- first:(first + ncol(d[[b]]) - 1); first <- max(columns) + 1
    if (is.null(pen[[b]])) next
    s <- rep(0, ncol(X)); s[columns] <- diag(pen[[b]][[1]]) * m$sp[length(S) + 1] / phi
    S[[length(S) + 1]] <- s; diag(H) <- diag(H) + s
  }
  V <- diag(solve(H))
  edf <- sapply(S, function(s) sum(s > 0) - sum(V * s))
  cat(sprintf("%s: %.8f | %s | %s | %.8f | %s\n", name, m$gcv.ubre, paste(sprintf("%.8g", m$sp / phi), collapse = " "),
              paste(sprintf("%.6f", edf), collapse = " "), nuisance, m$outer.info$conv))
}
