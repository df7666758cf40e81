# REML of mgcv on the designs and penalties that scripts/reference/models.py wrote: score, sp and edf per penalty.
suppressMessages(library(mgcv))
cat("mgcv", as.character(packageVersion("mgcv")), "\n")
folder <- commandArgs(TRUE)[1]
for (name in list.files(folder)) {
  here <- file.path(folder, name)
  d <- list(y = scan(file.path(here, "y.txt"), quiet = TRUE))
  pen <- list(); names <- c()
  for (k in 0:9) {
    f <- file.path(here, paste0("X", k, ".txt"))
    if (!file.exists(f)) break
    x <- paste0("X", k); d[[x]] <- as.matrix(read.table(f)); names <- c(names, x)
    s <- suppressWarnings(scan(file.path(here, paste0("S", k, ".txt")), quiet = TRUE))
    if (length(s)) pen[[x]] <- list(diag(s, nrow = length(s)), rank = sum(s > 0))
  }
  m <- gam(as.formula(paste("y ~", paste(names, collapse = " + "), "- 1")), data = d, paraPen = pen, method = "REML",
           control = gam.control(scalePenalty = FALSE, newton = list(conv.tol = 1e-11), epsilon = 1e-12))
  V <- vcov(m) / m$sig2; at <- 0; edf <- c()
  for (x in names) {
    w <- ncol(d[[x]])
    if (!is.null(pen[[x]])) {
      i <- at + 1:w; j <- length(edf) + 1
      edf <- c(edf, pen[[x]]$rank - m$sp[j] * sum(diag(V[i, i]) * diag(pen[[x]][[1]])))
    }
    at <- at + w
  }
  cat(sprintf("%s: %.8f | %s | %s\n", name, m$gcv.ubre, paste(sprintf("%.8g", m$sp), collapse = " "),
              paste(sprintf("%.6f", edf), collapse = " ")))
}
