# mgcv by REML on the data and knots that scripts/reference/several.py wrote: the factor of each penalty of raw
# coefficients, the smooths' edf and the first fitted linear predictors.
suppressMessages(library(mgcv))
cat("mgcv", as.character(packageVersion("mgcv")), "\n")
folder <- commandArgs(TRUE)[1]
tight <- gam.control(scalePenalty = FALSE, newton = list(conv.tol = 1e-11), epsilon = 1e-12)
knots <- function(name, column) scan(file.path(folder, sprintf("%s.%s.txt", name, column)), quiet = TRUE)
data <- function(name, levels) {
  d <- read.csv(file.path(folder, paste0(name, ".csv")))
  for (l in levels) d[[l]] <- factor(d[[l]])
  d
}
show <- function(name, m, lambda) {
  cat(sprintf("%s: lambda %s | edf %s | eta %s\n", name, paste(sprintf("%.8g", lambda), collapse = " "),
              paste(sprintf("%.6f", summary(m)$s.table[, "edf"]), collapse = " "),
              paste(sprintf("%.7f", m$linear.predictors[1:4]), collapse = " ")))
}
norm <- function(k) { D <- diff(diag(k), differences = 2); max(eigen(t(D) %*% D, TRUE)$values) }

d <- data("te", "variety")
k <- list(latitude = knots("te", "latitude"), longitude = knots("te", "longitude"))
m <- gam(yield ~ te(latitude, longitude, bs = "ps", m = list(c(2, 2), c(2, 2)), k = c(7, 6), np = FALSE) +
           s(variety, bs = "re"), data = d, knots = k, method = "REML", control = tight)
# te divides each margin's penalty by its largest eigenvalue.
show("te", m, m$sp / c(norm(7), norm(6), 1))

d <- data("select", "livch"); k <- list(age = knots("select", "age"))
m <- gam(use ~ livch + s(age, bs = "ps", m = c(2, 2), k = 10), family = binomial, data = d, knots = k, method = "REML",
         select = TRUE, control = tight)
show("select", m, m$sp)

d <- data("by", "livch"); k <- list(age = knots("by", "age"))
m <- gam(use ~ livch + s(age, by = livch, bs = "ps", m = c(2, 2), k = 8), family = binomial, data = d, knots = k,
         method = "REML", control = tight)
show("by", m, m$sp)
m <- gam(use ~ livch + s(age, by = livch, bs = "ps", m = c(2, 2), k = 8, id = 1), family = binomial, data = d, knots = k,
         method = "REML", control = tight)
show("tied", m, m$sp)

d <- data("fixed", c("YEAR", "BROOD")); k <- list(HEIGHT = knots("fixed", "HEIGHT"))
m <- gam(TICKS ~ YEAR + s(HEIGHT, bs = "ps", m = c(2, 2), k = 10, sp = exp(2)) + s(BROOD, bs = "re"), family = poisson,
         data = d, knots = k, method = "REML", control = tight)
show("fixed", m, c(exp(2), m$sp[length(m$sp)]))

d <- list(y = data("te", "variety")$yield)
pen <- list()
for (b in 0:4) {
  x <- paste0("X", b); d[[x]] <- as.matrix(read.table(file.path(folder, paste0(x, ".txt"))))
  own <- list()
  for (j in 0:1) {
    f <- file.path(folder, sprintf("S%d.%d.txt", b, j))
    if (file.exists(f)) own[[j + 1]] <- diag(scan(f, quiet = TRUE))
  }
  if (length(own)) pen[[x]] <- own
}
m <- gam(y ~ X0 + X1 + X2 + X3 + X4 - 1, data = d, paraPen = pen, method = "REML", control = tight)
cat(sprintf("projected: score %.8f | lambda %s | eta %s\n", m$gcv.ubre, paste(sprintf("%.8g", m$sp), collapse = " "),
            paste(sprintf("%.7f", m$linear.predictors[1:4]), collapse = " ")))
