# REML of mgcv's gaulss on the designs and penalties that scripts/reference/models.py wrote: score, sp and edf per penalty.
suppressMessages(library(mgcv))
# A term whose design and penalty are given: its variable is the row number.
smooth.construct.given.smooth.spec <- function(object, data, knots) {
  s <- object$xt$s
  object$X <- object$xt$X[data[[object$term]], , drop = FALSE]
  object$S <- list(diag(s, nrow = length(s)))
  object$rank <- sum(s > 0)
  object$null.space.dim <- sum(s == 0)
  object$C <- matrix(0, 0, ncol(object$X))
  object$side.constrain <- FALSE
  class(object) <- "given.smooth"
  object
}
Predict.matrix.given.smooth <- function(object, data) object$xt$X[data[[object$term]], , drop = FALSE]
folder <- commandArgs(TRUE)[1]
for (name in list.files(folder)) {
  here <- file.path(folder, name)
  d <- list(y = scan(file.path(here, "y.txt"), quiet = TRUE))
  d$row <- seq_along(d$y)
  part <- list(mean = c(), scale = c()); xt <- list()
  for (k in 0:9) for (p in c("mean", "scale")) {
    f <- file.path(here, paste0("X", k, ".", p, ".txt"))
    if (!file.exists(f)) next
    x <- paste0("X", k); X <- as.matrix(read.table(f))
    s <- suppressWarnings(scan(file.path(here, paste0("S", k, ".txt")), quiet = TRUE))
    if (length(s)) {
      xt[[x]] <- list(X = X, s = s)
      part[[p]] <- c(part[[p]], sprintf('s(row, bs = "given", xt = xt$%s)', x))
    } else {
      d[[x]] <- X; part[[p]] <- c(part[[p]], x)
    }
  }
  m <- gam(list(as.formula(paste("y ~ -1 +", paste(part$mean, collapse = "+"))),
                as.formula(paste("~ -1 +", paste(part$scale, collapse = "+")))),
           data = d, family = gaulss(b = 0), method = "REML",
           control = gam.control(scalePenalty = FALSE, newton = list(conv.tol = 1e-9), epsilon = 1e-12))
  V <- vcov(m)
  edf <- sapply(seq_along(m$smooth), function(j) {
    i <- m$smooth[[j]]$first.para:m$smooth[[j]]$last.para
    m$smooth[[j]]$rank - m$sp[j] * sum(diag(V[i, i]) * diag(m$smooth[[j]]$S[[1]]))
  })
  cat(sprintf("%s: %.8f | %s | %s\n", name, m$gcv.ubre, paste(sprintf("%.8g", m$sp), collapse = " "),
              paste(sprintf("%.6f", edf), collapse = " ")))
}
