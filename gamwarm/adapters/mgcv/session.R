# The R side of gamwarm.adapters.mgcv: one list of functions.
#
# mgcv's own functions do the fitting. They run in copies whose environment has four names of ours in front of mgcv's:
# smooth.construct3 (fixed knots), gam.fit3 (counts, and lets Python see an evaluation), newton and bfgs (let Python
# choose where mgcv's search begins).
local({
  space <- asNamespace("mgcv")
  own <- new.env(parent = space)
  copied <- c("gam", "gam.setup", "gam.setup.list", "smoothCon", "estimate.gam", "gam.outer", "newton", "bfgs")
  for (name in c(copied, "gam.fit3", "smooth.construct3", "Sl.initial.repara", "gam.fit5.post.proc", "interpret.gam"))
    if (!exists(name, space, inherits = FALSE)) stop("this version of mgcv has no function ", name)
  for (name in copied) {
    f <- get(name, space)
    environment(f) <- own
    assign(name, f, own)
  }
  searches <- list(newton = own$newton, bfgs = own$bfgs)
  now <- NULL # the fit in progress: an environment

  # -- bases: a smooth is known by its label and by how many of that label came before it ---------------------------
  margins <- function(sm) if (is.null(sm$margin)) list(sm) else sm$margin

  knots_of <- function(sm) {
    found <- list()
    for (each in margins(sm)) {
      at <- if (!is.null(each$xp)) each$xp else each$knots
      if (!is.null(at) && length(each$term) == 1) found[[each$term]] <- as.numeric(at)
    }
    found
  }

  own$smooth.construct3 <- function(object, data, knots) {
    before <- sum(vapply(now$raw, function(each) each$label == object$label, TRUE))
    key <- paste(object$label, before)
    fixed <- now$knots[[key]]
    if (is.null(fixed)) fixed <- knots
    sm <- space$smooth.construct3(object, data, fixed)
    norms <- rep(1, length(sm$S))
    if (is.null(sm$margin)) norms <- vapply(sm$S, norm, 0, type = "1")
    sm$gamwarm <- length(now$raw) + 1
    now$raw[[sm$gamwarm]] <- list(label = object$label, key = key, knots = knots_of(sm), norms = norms)
    sm
  }

  # What the raw basis depends on, as text and numbers; equal for bases whose coefficients mean the same.
  basis_of <- function(sm, mf) {
    parts <- lapply(margins(sm), function(each) list(
      class(each)[1], each$term, as.numeric(each$bs.dim), as.numeric(unlist(each$p.order)), as.numeric(unlist(each$m)),
      as.numeric(unlist(if (!is.null(each$xp)) each$xp else each$knots)),
      unlist(lapply(each$term, function(v) levels(mf[[v]])))))
    c(list(class(sm)[1]), unlist(parts, recursive = FALSE))
  }

  # -- gauges: what lifts the coefficients of a smooth to those of its raw basis ------------------------------------
  # A centring constraint comes from the rows of one fit, and moves a smooth by a constant: lifted coefficients are free
  # of that constant, whose coefficients in these bases are all equal.
  uncentred <- function(sm, width) {
    q <- attr(sm, "qrc")
    if (is.null(q) || is.character(q)) return(diag(width))
    if (!inherits(q, "qr")) return(NULL)
    cut <- attr(sm, "nCons")
    among <- attr(sm, "indi")
    if (!is.null(among) && length(among) != width) return(NULL)
    without_constant(qr.Q(q, complete = TRUE)[, -seq_len(cut), drop = FALSE])
  }
  without_constant <- function(lift) t(t(lift) - colMeans(lift))

  lift_of <- function(sm) {
    raw <- NULL
    if (inherits(sm, "tensor.smooth")) {
      raw <- matrix(1)
      for (i in seq_along(sm$margin)) {
        each <- sm$margin[[i]]
        part <- uncentred(each, ncol(each$X) + if (is.null(attr(each, "nCons"))) 0 else attr(each, "nCons"))
        if (i <= length(sm$XP) && !is.null(sm$XP[[i]])) part <- part %*% sm$XP[[i]]
        raw <- kronecker(raw, part)
      }
    }
    lift <- uncentred(sm, if (is.null(raw)) sm$gamwarm.width else ncol(raw))
    if (is.null(lift)) return(NULL)
    if (!is.null(raw)) {
      if (inherits(attr(sm, "qrc"), "qr")) lift <- without_constant(raw %*% qr.Q(attr(sm, "qrc"), complete = TRUE)[, -1, drop = FALSE])
      else lift <- raw %*% lift
    }
    gone <- attr(sm, "del.index")
    if (length(gone)) lift <- lift[, -gone, drop = FALSE]
    lift
  }

  # -- setting up ----------------------------------------------------------------------------------------------------
  collected <- function(expression) {
    # Evaluates; warnings are kept, an error is text.
    words <- character()
    value <- withCallingHandlers(
      tryCatch(expression, error = function(e) structure(list(conditionMessage(e)), class = "gamwarm.error")),
      warning = function(w) {
        words <<- c(words, conditionMessage(w))
        invokeRestart("muffleWarning")
      })
    list(value = if (inherits(value, "gamwarm.error")) NULL else value,
         error = if (inherits(value, "gamwarm.error")) value[[1]] else NULL, warnings = unique(words))
  }

  formula_of <- function(texts) {
    around <- new.env(parent = globalenv())
    each <- lapply(texts, function(text) stats::as.formula(text, env = around))
    if (length(each) == 1) each[[1]] else each
  }

  # Variables and smooths of a formula, before any data are looked at.
  read_formula <- function(texts) collected({
    formula <- formula_of(texts)
    gp <- space$interpret.gam(formula)
    parts <- if (is.list(formula)) gp[seq_along(formula)] else list(gp)
    specs <- unlist(lapply(parts, function(part) part$smooth.spec), recursive = FALSE)
    smooths <- lapply(specs, function(s) list(
      label = s$label, kind = sub(".smooth.spec", "", class(s)[1], fixed = TRUE), bs = vapply(margins(s), function(each) sub(".smooth.spec", "", class(each)[1], fixed = TRUE), ""),
      terms = s$term, by = if (is.null(s$by)) "NA" else s$by, tensor = !is.null(s$margin)))
    list(variables = all.vars(gp$fake.formula), smooths = smooths,
         parametric = unique(unlist(lapply(parts, function(part) all.vars(part$pf)))))
  })

  setup <- function(texts, data, family, weights, offset, knots, fixed, select, gamma, control) {
    fit <- new.env()
    fit$knots <- fixed
    fit$raw <- list()
    now <<- fit
    scope <- new.env(parent = globalenv())
    scope$gam <- own$gam
    scope$data <- data
    scope$formula <- formula_of(texts)
    scope$knots <- if (length(knots)) knots else NULL
    scope$control <- c(control, list(scalePenalty = FALSE))
    scope$select <- select
    scope$gamma <- gamma
    done <- collected({
      scope$family <- eval(parse(text = family), new.env(parent = space))
      if (is.function(scope$family)) scope$family <- scope$family()
      call <- quote(gam(formula, family = family, data = data, knots = knots, method = "REML", select = select,
                        gamma = gamma, control = control, drop.unused.levels = FALSE, fit = FALSE))
      if (weights) call$weights <- quote(.weights)
      if (offset) call$offset <- quote(.offset)
      fit$call <- call
      fit$scope <- scope
      eval(call, scope)
    })
    fit$G <- done$value
    if (is.null(done$error)) {
      G <- fit$G
      # Predict.matrix knows the width of every raw basis, whatever constraints were absorbed.
      for (i in seq_along(G$smooth)) {
        sm <- G$smooth[[i]]
        cons <- attr(sm, "nCons")
        width <- sm$last.para - sm$first.para + 1 + length(attr(sm, "del.index"))
        G$smooth[[i]]$gamwarm.width <- width + if (is.null(cons)) 0 else cons
      }
      fit$G <- G
    }
    list(fit = fit, error = done$error, warnings = done$warnings)
  }

  outer_names <- function(G) {
    # Which outer coordinates mgcv adds: thetas before the smoothing parameters, the log scale after them.
    f <- G$family
    general <- inherits(f, "general.family")
    extended <- inherits(f, "extended.family")
    thetas <- if (extended && !general && !is.null(f$n.theta)) f$n.theta else 0
    free <- !(f$family[1] %in% c("binomial", "poisson")) && substr(f$family[1], 1, 17) != "Negative Binomial"
    if (extended) free <- !is.null(f$scale) && f$scale < 0
    list(thetas = thetas, scale = free)
  }

  describe <- function(fit) {
    G <- fit$G
    f <- G$family
    free <- outer_names(G)
    offsets <- if (is.list(G$offset)) G$offset else list(G$offset)
    numbers <- lapply(offsets, function(o) if (is.null(o)) numeric() else as.numeric(o))
    theta <- if (is.null(f$getTheta)) numeric() else tryCatch(as.numeric(f$getTheta()), error = function(e) numeric())
    list(X = G$X, y = as.numeric(G$y), response = c(class(G$y)[1], as.character(dim(G$y))), w = as.numeric(G$w),
      offsets = numbers, family = as.character(f$family), link = as.character(unlist(f$link)), theta = theta,
      n.theta = free$thetas, scale = free$scale,
      unsupported = if (!is.null(G$P)) "separate constraints for prediction" else
        if (!is.null(f$available.derivs) && f$available.derivs == 0) paste("family", f$family[1], "without derivatives"),
      S = lapply(G$S, as.matrix), L = if (is.null(G$L)) diag(length(G$S)) else G$L,
      lsp0 = if (is.null(G$lsp0)) rep(0, length(G$S)) else as.numeric(G$lsp0), off = as.integer(G$off),
      rank = as.numeric(G$rank), names = names(G$sp), term.names = G$term.names,
      lpi = lapply(attr(G$X, "lpi"), as.integer),
      rows = if (is.null(attr(G$mf, "na.action"))) integer() else as.integer(attr(G$mf, "na.action")),
      knots = stats::setNames(lapply(fit$raw, function(each) each$knots), vapply(fit$raw, function(each) each$key, "")),
      smooths = lapply(G$smooth, function(sm) {
        raw <- fit$raw[[sm$gamwarm]]
        list(label = sm$label, first = as.integer(sm$first.para), last = as.integer(sm$last.para), n.S = length(sm$S),
          lift = lift_of(sm), basis = basis_of(sm, G$mf), key = raw$key, kind = class(sm)[1],
          bs.dim = if (is.null(sm$margin)) as.integer(sm$bs.dim) else NULL,
          norms = c(raw$norms, rep(1, max(0, length(sm$S) - length(raw$norms))))[seq_along(sm$S)])
      }))
  }

  # Names of the parametric coefficients if every level of `frame` had rows, by formula.
  parametric_names <- function(fit, frame) {
    pterms <- if (inherits(fit$G$pterms, "terms")) list(fit$G$pterms) else fit$G$pterms
    lapply(seq_along(pterms), function(i) {
      names <- colnames(stats::model.matrix(stats::delete.response(pterms[[i]]), frame))
      if (i > 1 && length(names)) paste(names, i - 1, sep = ".") else names
    })
  }

  # -- fitting -------------------------------------------------------------------------------------------------------
  own$gam.fit3 <- function(..., sp, deriv = 2, start = NULL) {
    kept <- now$memo
    if (!is.null(kept) && kept$deriv >= deriv && identical(as.numeric(sp), kept$sp)) {
      now$memo <- NULL
      return(kept$b)
    }
    b <- space$gam.fit3(..., sp = sp, deriv = deriv, start = start)
    cycles <- if (is.null(b$iter)) 0 else b$iter
    now$cost <- now$cost + c(1, cycles, cycles + if (deriv == 2) length(sp) else 0)
    progress <- now$progress
    if (isTRUE(now$seen(deriv > 0, function() progress(sp, b)))) stop("gamwarm: stopped")
    b
  }

  # Replaces newton and bfgs: their arguments are bound, and `road` chooses what is evaluated and searched from where.
  replaced <- function(kind) {
    original <- searches[[kind]]
    f <- original
    body(f) <- substitute({
      frame <- environment()
      frame$.more <- list(...)
      steered(KIND, frame)
    }, list(KIND = kind))
    environment(f) <- own
    f
  }
  own$newton <- replaced("newton")
  own$bfgs <- replaced("bfgs")

  own$steered <- function(kind, a) {
    general <- inherits(a$family, "general.family")
    inside <- function(coef) {
      if (is.null(coef) || !general) return(coef)
      space$Sl.initial.repara(a$Sl, coef, inverse = FALSE, both.sides = FALSE)
    }
    outside <- function(coef) if (general) space$Sl.initial.repara(a$Sl, coef, inverse = TRUE) else coef
    L <- if (is.null(a$L)) diag(length(a$lsp)) else a$L
    lsp0 <- if (is.null(a$lsp0)) rep(0, nrow(L)) else a$lsp0
    control <- a$control
    if (control$epsilon > a$conv.tol / 100) control$epsilon <- a$conv.tol / 100 # as newton does
    cold <- as.numeric(a$lsp)
    deriv <- if (kind == "newton") 2 else 1
    given <- function(call) { # what gam.fit3 and the search take, by name
      for (name in setdiff(names(formals(searches[[kind]])), c("...", "lsp", "L", "lsp0", "start", "mustart", "conv.tol",
        "maxNstep", "maxSstep", "maxHalf", "edge.correct", "control", "printWarn"))) call[[name]] <- as.name(name)
      for (name in names(a$.more)) call[[name]] <- call("[[", as.name(".more"), name)
      call
    }
    point <- function(b, lsp, grad = NULL, hess = NULL, iter = 0L, conv = "full convergence") {
      if (is.null(grad)) grad <- crossprod(L, b$REML1)
      if (is.null(hess) && !is.null(b$REML2)) hess <- crossprod(L, b$REML2 %*% L)
      scale <- abs(log(b$scale.est)) + abs(b$REML)
      factor <- function() {
        if (!general) return(b$rV)
        b$sp <- exp(lsp)
        V <- space$gam.fit5.post.proc(b, a$Sl, L, lsp0, list(), integer(), a$gamma)$Vp
        e <- eigen(V, symmetric = TRUE)
        e$vectors %*% (sqrt(pmax(e$values, 0)) * t(e$vectors))
      }
      list(lsp = as.numeric(lsp), value = as.numeric(b$REML), grad = as.numeric(grad),
        hess = if (kind == "newton") hess else NULL, coef = as.numeric(outside(b$coefficients)), factor = factor,
        tol = 5 * a$conv.tol * scale, inner = is.null(b$conv) || isTRUE(as.logical(b$conv)), iter = as.integer(iter),
        conv = conv, b = b)
    }
    evaluate <- function(lsp, coef) {
      a$.lsp <- lsp
      a$.start <- inside(coef)
      a$.control <- control
      a$.sp <- as.numeric(L %*% lsp + lsp0)
      a$.deriv <- deriv
      call <- given(quote(gam.fit3(x = X, sp = .sp, start = .start, control = .control, deriv = .deriv,
                                   printWarn = FALSE)))
      call$X <- NULL
      point(eval(call, a), lsp)
    }
    search <- function(lsp, coef, memo = NULL) {
      a$.lsp <- lsp
      a$.start <- inside(coef)
      a$.search <- searches[[kind]]
      now$memo <- if (is.null(memo)) NULL else
        list(sp = as.numeric(L %*% memo$lsp + lsp0), deriv = deriv, b = memo$b)
      call <- given(quote(.search(lsp = .lsp, start = .start, L = L, lsp0 = lsp0, mustart = mustart, conv.tol = conv.tol,
                                  maxNstep = maxNstep, maxSstep = maxSstep, maxHalf = maxHalf, control = control,
                                  printWarn = printWarn)))
      if ("edge.correct" %in% names(formals(a$.search))) call$edge.correct <- quote(edge.correct)
      r <- eval(call, a)
      now$memo <- NULL
      b <- r$object
      if (is.null(b$REML)) b$REML <- r$score
      done <- point(b, r$lsp, r$grad, r$hess, r$iter, r$conv)
      done$value <- as.numeric(r$score)
      done$result <- r
      done
    }
    # The penalized deviance that the inner fit of ordinary and extended families lowers; NULL where there is none.
    penalized <- if (general || is.null(a$family$dev.resids)) NULL else function(lsp, coef) {
      eta <- drop(a$X %*% coef) + a$offset
      mu <- a$family$linkinv(eta)
      if (!is.null(a$family$validmu) && !isTRUE(all(a$family$validmu(mu)))) return(Inf)
      theta <- if (now$n.theta > 0) lsp[seq_len(now$n.theta)] else NULL
      dev <- if (is.null(theta)) a$family$dev.resids(a$y, mu, a$weights) else
        a$family$dev.resids(a$y, mu, a$weights, theta)
      sum(dev) + now$penalty(lsp, coef)
    }
    # Called from Python, where no handler of R's is in place.
    told <- function(f) if (!is.null(f)) function(...) {
      done <- collected(f(...))
      if (is.null(done$error)) c(if (is.list(done$value)) done$value else list(value = done$value),
                                 list(words = done$warnings))
      else list(error = done$error)
    }
    now$progress <- told(function(sp, b) point(b, qr.solve(L, as.numeric(sp) - lsp0), conv = "stopped on the way"))
    chosen <- now$road(list(cold = cold, evaluate = told(evaluate), search = told(search), penalized = told(penalized),
                            width = ncol(a$X), null = if (general) NULL else as.numeric(a$null.coef)))
    if (!is.list(chosen)) stop("gamwarm: stopped")
    if (!is.null(chosen$result)) return(chosen$result)
    # An answer that was evaluated, not searched for.
    list(score = chosen$value, lsp = chosen$lsp, lsp.full = L %*% chosen$lsp + lsp0, grad = chosen$grad,
      hess = if (is.null(chosen$hess)) NULL else chosen$hess, iter = 0, conv = "full convergence",
      score.hist = chosen$value, object = chosen$b)
  }

  run <- function(fit, road, seen) {
    fit$road <- road
    fit$seen <- seen
    fit$cost <- c(0, 0, 0)
    fit$memo <- NULL
    G <- fit$G
    fit$n.theta <- outer_names(G)$thetas
    L <- if (is.null(G$L)) diag(length(G$S)) else G$L
    lsp0 <- if (is.null(G$lsp0)) rep(0, length(G$S)) else G$lsp0
    fit$penalty <- function(lsp, coef) {
      total <- 0
      log.sp <- drop(L %*% lsp[fit$n.theta + seq_len(ncol(L))]) + lsp0
      for (j in seq_along(G$S)) {
        beta <- coef[G$off[j] - 1 + seq_len(ncol(G$S[[j]]))]
        total <- total + exp(log.sp[j]) * sum(beta * (G$S[[j]] %*% beta))
      }
      total
    }
    now <<- fit
    done <- collected({
      fit$scope$G <- G
      eval(quote(gam(G = G, method = "REML", gamma = gamma, control = control)), fit$scope)
    })
    alone <- NULL # a model without outer coordinates: nothing was searched
    if (!is.null(done$value) && is.null(done$value$outer.info)) {
      m <- done$value
      fit$cost <- c(1, m$iter, m$iter)
      alone <- list(lsp = numeric(), value = as.numeric(m$gcv.ubre), grad = numeric(), hess = NULL,
        coef = as.numeric(m$coefficients), factor = function() matrix(0, length(m$coefficients), 0), tol = 0,
        inner = TRUE, iter = 0L, conv = if (isFALSE(m$converged)) "the inner fit did not converge" else "full convergence")
    }
    fit$road <- fit$seen <- fit$memo <- fit$progress <- NULL
    object <- done$value
    if (!is.null(object)) {
      for (i in seq_along(object$smooth)) object$smooth[[i]]$gamwarm <- object$smooth[[i]]$gamwarm.width <- NULL
      call <- fit$call
      call$fit <- call$drop.unused.levels <- NULL
      at.home <- function(f) {
        environment(f) <- globalenv()
        f
      }
      object$formula <- if (is.list(object$formula)) lapply(object$formula, at.home) else at.home(object$formula)
      attr(object$formula, "lpi") <- if (is.list(object$formula)) attr(G$X, "lpi")
      call$formula <- object$formula
      object$call <- call
    }
    list(object = object, alone = alone, error = done$error, warnings = done$warnings, cost = fit$cost)
  }

  frame <- function(columns, n) structure(columns, class = "data.frame", row.names = .set_row_names(n))
  factor_of <- function(codes, levels, ordered)
    structure(codes, levels = levels, class = c(if (ordered) "ordered", "factor"))

  list(frame = frame, factor_of = factor_of, read_formula = read_formula, setup = setup, describe = describe, parametric_names = parametric_names,
    run = run,
    version = function() as.character(utils::packageVersion("mgcv")),
    summarize = function(object) collected(paste(utils::capture.output(print(summary(object))), collapse = "\n")),
    predict = function(object, data, arguments) collected({
      arguments$object <- object
      if (!is.null(data)) arguments$newdata <- data
      do.call(stats::predict, arguments)
    }),
    predictors = function(object) all.vars(object$pred.formula),
    edf = function(object) object$edf,
    smooth_edf = function(object) vapply(object$smooth, function(sm) sum(object$edf[sm$first.para:sm$last.para]), 0),
    put = function(object, coef) {
      object$coefficients[] <- coef
      object
    })
})
