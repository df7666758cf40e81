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
for (name in rev(list.files(folder))) {  # without Diet first
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
  formulas <- list(as.formula(paste("y ~ -1 +", paste(part$mean, collapse = "+"))),
                   as.formula(paste("~ -1 +", paste(part$scale, collapse = "+"))))
  ask <- function(...) suppressWarnings(gam(formulas, data = d, family = gaulss(b = 0), method = "REML",
    control = gam.control(scalePenalty = FALSE, newton = list(conv.tol = 1e-9), epsilon = 1e-12), ...))
  m <- ask()
  if (m$outer.info$conv != "full convergence") {
    cat(sprintf("%s: %s at %.8f, |gradient| = %.2g; %.8f with these sp given; once more from the sp of the model before\n",
                name, m$outer.info$conv, m$gcv.ubre, max(abs(m$outer.info$grad)), ask(sp = m$sp)$gcv.ubre))
    m <- ask(in.out = list(sp = before, scale = 1))
  }
  before <- m$sp
  # mgcv's own edf are of a likelihood whose Hessian has its negative eigenvalues set to 0. These are of the Hessian.
  X <- predict(m, type = "lpmatrix"); lpi <- attr(X, "lpi"); b <- coef(m)
  X1 <- X[, lpi[[1]]]; X2 <- X[, lpi[[2]]]
  r <- d$y - X1 %*% b[lpi[[1]]]; w <- as.vector(exp(-2 * X2 %*% b[lpi[[2]]]))
  H <- matrix(0, length(b), length(b))
  H[lpi[[1]], lpi[[1]]] <- crossprod(X1, w * X1)
  H[lpi[[1]], lpi[[2]]] <- crossprod(X1, as.vector(2 * r * w) * X2)
  H[lpi[[2]], lpi[[1]]] <- t(H[lpi[[1]], lpi[[2]]])
  H[lpi[[2]], lpi[[2]]] <- crossprod(X2, as.vector(2 * r^2 * w) * X2)
  least <- min(eigen(H, symmetric = TRUE, only.values = TRUE)$values)
  for (j in seq_along(m$smooth)) {
    i <- m$smooth[[j]]$first.para:m$smooth[[j]]$last.para
    H[i, i] <- H[i, i] + m$sp[j] * m$smooth[[j]]$S[[1]]
  }
  V <- solve(H)
  edf <- sapply(seq_along(m$smooth), function(j) {
    i <- m$smooth[[j]]$first.para:m$smooth[[j]]$last.para
    m$smooth[[j]]$rank - m$sp[j] * sum(diag(V[i, i]) * diag(m$smooth[[j]]$S[[1]]))
  })
  cat(sprintf("%s: %.8f | %s | %s | %s, least eigenvalue of the likelihood's Hessian %.2g\n", name, m$gcv.ubre,
              paste(sprintf("%.8g", m$sp), collapse = " "), paste(sprintf("%.6f", edf), collapse = " "),
              m$outer.info$conv, least))
}
