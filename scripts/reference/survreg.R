# survreg of R's survival package on its data sets veteran and cgd, without penalties: log-likelihood, log scales, and
# the first linear predictors. What it prints is held in tests/engine/test_survreg_reference.py.
#
#   Rscript scripts/reference/survreg.R
library(survival)
cat("survival", as.character(packageVersion("survival")), "\n")
cgd$gap <- cgd$tstop - cgd$tstart
veteran$trt <- factor(veteran$trt)
tight <- survreg.control(rel.tolerance = 1e-13, maxiter = 200)
for (dist in c("loglogistic", "lognormal")) {
  one <- survreg(Surv(time, status) ~ karno + celltype + trt, data = veteran, dist = dist, control = tight)
  two <- survreg(Surv(time, status) ~ karno + celltype + trt + strata(trt), data = veteran, dist = dist, control = tight)
  three <- survreg(Surv(gap, status) ~ treat + age + weight + strata(treat), data = cgd, dist = dist, control = tight)
  fits <- list("veteran" = one, "veteran, a scale per treatment" = two, "cgd, a scale per treatment" = three)
  for (name in names(fits)) {
    m <- fits[[name]]
    cat(sprintf("%s, %s: %.8f | %s | %s\n", dist, name, m$loglik[2], paste(sprintf("%.8f", log(m$scale)), collapse = " "),
                paste(sprintf("%.7f", m$linear.predictors[c(1, 50, 100)]), collapse = " ")))
  }
}
