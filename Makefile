# `make` lists the targets. Modules are found by their go.mod, so a new one needs no change here.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.NOTPARALLEL:
.DEFAULT_GOAL := help

GO ?= go
BIN := $(CURDIR)/bin
RUNS := $(BIN)/runs# the JSON of test runs

MODULES := $(sort $(patsubst ./%/go.mod,./%,$(patsubst ./go.mod,.,$(shell find . -name go.mod -not -path '*/testdata/*' -not -path './bin/*'))))
# The patterns of all modules that go.work ties together, for one go command.
WORKSPACE = $(shell $(GO) list -m -f '{{.Dir}}/...')

COVER_MIN ?= 95
FUZZTIME ?= 5s
ROUNDS ?= 10
FILES ?=
FILE ?= examples/rag/internal/service/breakers.yaml
CHANNEL ?=
comma := ,

# each runs a command in every module, by itself, as a user of that module would have it.
each = for m in $(MODULES); do echo "-- $$m: $(1)"; (cd $$m && GOWORK=off $(1)); done

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: demo
demo: ## a RAG service lives through an outage, in your terminal (60 s)
	$(GO) run ./examples/rag demo

.PHONY: run
run: ## the RAG service, until interrupted
	$(GO) run ./examples/rag serve

.PHONY: alert-test
alert-test: ## send a test alert; CHANNEL=slack for one type only, FILE=breakers.yaml for another file than the example's
	@$(GO) run ./alert/cmd/alert-test -file '$(FILE)' -channel '$(CHANNEL)'

.PHONY: test
test: ## tests of every module
	$(GO) test $(WORKSPACE)

.PHONY: race
race: ## tests of every module under the race detector
	$(GO) test -race $(WORKSPACE)

.PHONY: fmt
fmt: ## format, apply go fix, tidy every module
	gofmt -w .
	$(call each,$(GO) fix ./...)
	$(call each,$(GO) mod tidy)

.PHONY: tidy
tidy: ## go mod tidy in every module
	$(call each,$(GO) mod tidy)

.PHONY: lint
lint: check-format check-fix vet staticcheck golangci ## format, go fix, go vet, staticcheck, golangci-lint

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (5s)
	@for m in $(MODULES); do
		for pkg in $$(cd $$m && GOWORK=off $(GO) list ./...); do
			for target in $$(cd $$m && GOWORK=off $(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do
				echo "-- $$pkg $$target"
				(cd $$m && GOWORK=off $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg)
			done
		done
	done

.PHONY: bench
bench: speed scale ## this library's speed beside its peers', into the README and docs/speed.md: ROUNDS (10) undisturbed measurements of each benchmark

.PHONY: speed
speed:
	@mkdir -p $(RUNS)
	cd tools && GOBIN=$(BIN) GOWORK=off $(GO) install golang.org/x/perf/cmd/benchstat ./speed && cd ..
	(cd bench && GOWORK=off $(GO) test -c -o $(BIN)/speed.test ./speed)
	cat >$(RUNS)/bench.txt <<-END
		goversion: $$($(GO) env GOVERSION)
		commit: $$(git describe --always --dirty)
		command: make bench ROUNDS=$(ROUNDS)
		load: $$(cut -d' ' -f1 /proc/loadavg)
	END
	pattern=.
	for round in $$(seq $$((4 * $(ROUNDS)))); do
		echo "round $$round"
		$(BIN)/speed.test -test.run '^$$' -test.bench "$$pattern" -test.benchtime 1ms >>$(RUNS)/bench.txt
		pattern=$$($(BIN)/speed -lacking $(ROUNDS) $(RUNS)/bench.txt)
		[ -n "$$pattern" ] || break
	done
	grep -v disturbed $(RUNS)/bench.txt >$(RUNS)/undisturbed.txt
	$(BIN)/benchstat -filter '.name:Call .unit:sec/op' -table /case,/rule -row /goroutines -col /lib $(RUNS)/undisturbed.txt
	$(BIN)/benchstat -filter '-.name:Call' -row .fullname $(RUNS)/undisturbed.txt
	$(BIN)/speed $(RUNS)/bench.txt

.PHONY: scale
scale: ## how cost grows with goroutines, windows, breakers and error texts, into docs/speed.md
	@mkdir -p $(RUNS)
	cd tools && GOBIN=$(BIN) GOWORK=off $(GO) install ./speed && cd ..
	(cd bench && GOWORK=off $(GO) run ./scale) | tee $(RUNS)/scale.md
	$(BIN)/speed -scale $(RUNS)/scale.md

.PHONY: compare
compare: ## the behaviour table of the README: this library beside its peers
	cd bench && $(GO) test -count=1 -v -run TestTable .

# Built, not run by go run, which leaves out the symbols that callgrind needs.
instructions = (cd bench && CGO_ENABLED=0 GOWORK=off $(GO) build -o $(BIN)/instructions ./instructions && $(BIN)/instructions $(1))

.PHONY: instructions
instructions: ## how many instructions a call takes: within 10 % of bench/instructions/instructions.txt
	@$(call instructions,)

.PHONY: instructions-update
instructions-update: ## write that file
	@$(call instructions,-update)

.PHONY: cover
cover: ## coverage of the library, at least COVER_MIN (95) per cent
	@$(GO) test -coverprofile=cover.out . >/dev/null
	$(GO) tool cover -func=cover.out | awk -v min=$(COVER_MIN) '
		/^total:/ { total = $$NF + 0; printf "coverage of the library: %s of statements, at least %s%% wanted\n", $$NF, min }
		END { exit !(total >= min) }'

.PHONY: mutate
mutate: ## mutation run over the library; FILES="window.go ..." for some files
	cd tools && GOWORK=off $(GO) build -o $(BIN)/mutate ./mutate
	$(BIN)/mutate $(FILES)

PROOF := TestRandomHistoriesAgreeWithTheModel|TestNoStateRefusesForEver|TestEveryInterleavingAgreesWithTheModel|TestParallelHistoriesAreLinearizable
found = grep -ohE '$(1)' $(RUNS)/prove.log | tail -1

# The lane's atomic steps, one goroutine at a time: a build tag makes them stop before each.
STEPS := $(GO) test -count=1 -timeout 30m -tags lanesteps -run TestEveryOrderOfAtomicSteps .

.PHONY: steps
steps: ## every order of the atomic steps of calls that take no lock (two minutes); BREAKER_PROVE=1 with one interruption more, which takes many times as long
	$(GO) vet -tags lanesteps .
	$(STEPS)

.PHONY: prove
prove: ## the long proof of the core against its model, and long fuzzing (ten minutes)
	@mkdir -p $(RUNS)
	BREAKER_PROVE=1 $(GO) test -count=1 -timeout 30m -v -run '$(PROOF)' . >$(RUNS)/prove.log || { tail -50 $(RUNS)/prove.log; exit 1; }
	$(STEPS) -v >>$(RUNS)/prove.log || { tail -50 $(RUNS)/prove.log; exit 1; }
	$(MAKE) --no-print-directory fuzz FUZZTIME=15s >$(RUNS)/fuzz.log || { tail -50 $(RUNS)/fuzz.log; exit 1; }
	echo "random histories    $$($(call found,[0-9]+ histories.*a command))"
	echo "states explored     $$($(call found,[0-9]+ states.*[0-9]+ edges;.*))"
	echo "interleavings       $$($(call found,[0-9]+ orders of critical.*))"
	echo "atomic steps        $$($(call found,[0-9]+ orders of atomic.*))"
	echo "linearizability     $$($(call found,[0-9]+ parallel histories.*))"
	echo "fuzzing             $$(grep -c '^-- ' $(RUNS)/fuzz.log) targets, 15s each"
	echo "mutation            $$(sed -n 's/^Score: *//p' docs/mutation.md)"

.PHONY: check-format
check-format:
	@unformatted=$$(gofmt -l .)
	if [ -n "$$unformatted" ]; then echo "gofmt would change (run make fmt):"; echo "$$unformatted"; exit 1; fi

.PHONY: check-fix
check-fix:
	@$(call each,$(GO) fix -diff ./...)

.PHONY: check-tidy
check-tidy:
	@$(call each,$(GO) mod tidy -diff)

.PHONY: vet
vet:
	@$(call each,$(GO) vet ./...)

.PHONY: tools
tools:
	@cd tools && GOBIN=$(BIN) GOWORK=off $(GO) install tool ./testreport

.PHONY: staticcheck
staticcheck: tools
	@# SA1004: time.Sleep(1) in a synctest bubble is the instant after. SA1019: left to golangci-lint, where an exception has a reason.
	$(call each,$(BIN)/staticcheck -checks inherit$(comma)-SA1004$(comma)-SA1019 ./...)

.PHONY: golangci
golangci: tools
	@$(call each,$(BIN)/golangci-lint run --allow-parallel-runners ./...)

.PHONY: page-test
page-test: page/test/node_modules ## the live page in a real browser (Chromium, Node, npm); MEASURE=1 also wants no task over 50 ms, on a quiet machine
	cd page/test && node --test --test-concurrency=1 --test-reporter=spec *.test.js

.PHONY: page-shots
page-shots: page/test/node_modules ## the pictures of the README, anew, in docs/images
	node page/test/shots.js

page/test/node_modules: page/test/package-lock.json
	cd page/test
	npm ci --no-audit --no-fund --ignore-scripts
	touch node_modules

.PHONY: ci
ci: ci-lint ci-steps ci-race ci-alone ci-386 ci-cover ci-instructions ci-fuzz ci-demo ci-page ci-total ## all that must hold before a change lands; totals on the last line

.PHONY: ci-lint
ci-lint: check-format check-tidy check-fix vet staticcheck golangci

.PHONY: ci-steps
ci-steps:
	@echo "== every order of the atomic steps"
	$(MAKE) --no-print-directory steps

.PHONY: ci-race
ci-race: tools
	@echo "== tests of the workspace, with the race detector"
	rm -rf $(RUNS); mkdir -p $(RUNS)
	$(GO) test -race -json $(WORKSPACE) | $(BIN)/testreport -keep $(RUNS)/race.json

# Each module without the workspace, which may choose other versions of what they require; and what is exact only without the
# race detector, such as allocations.
.PHONY: ci-alone
ci-alone: tools
	@$(call each,$(GO) build ./...)
	echo "== tests that count allocations and bytes"
	(cd bench && GOWORK=off $(GO) test -json ./...) | $(BIN)/testreport -keep $(RUNS)/bench.json

.PHONY: ci-386
ci-386: tools
	@echo "== the library on 386"
	GOWORK=off GOARCH=386 CGO_ENABLED=0 $(GO) test -json . | $(BIN)/testreport -keep $(RUNS)/386.json

.PHONY: ci-cover
ci-cover: cover

.PHONY: ci-instructions
ci-instructions:
	@echo "== instructions of a call"
	$(call instructions,)

.PHONY: ci-fuzz
ci-fuzz: fuzz

.PHONY: ci-demo
ci-demo:
	@echo "== the demo, with what is built into it"
	env -u REDIS_URL -u DATABASE_URL $(GO) run ./examples/rag demo

.PHONY: ci-page
ci-page:
	@echo "== the live page, in a browser"
	$(MAKE) --no-print-directory page-test

.PHONY: ci-total
ci-total:
	@$(BIN)/testreport -total $(RUNS)/*.json
