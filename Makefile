# The commands of this project. `make demo` shows it, `make test` proves it, `make check` keeps it.

.PHONY: demo test test-matrix test-interop check fmt clippy docs licences unused soak fuzz bench bench-blind bench-publish

KEEP ?=

demo: ## the first drill, on a throwaway server, in two minutes; KEEP=1 goes on
	scripts/need rust postgres
	scripts/poolers any
	cargo build --release
	target/release/plimsoll drill run migration-042 $(if $(KEEP),--keep)

test: ## everything but the soak, on one PostgreSQL and one PgBouncer
	scripts/need rust postgres promtool strace ip openssl
	scripts/poolers 1.18
	cargo test --workspace

test-matrix: ## what reads servers, on PostgreSQL 13 to 18, and poolers, on PgBouncer 1.18, 1.24 and 1.26
	scripts/need rust postgres ip openssl
	scripts/test-matrix

test-interop: ## the image and the dashboard, with what they are put together with
	scripts/need rust musl postgres prometheus buildah debootstrap go python npm
	scripts/applications
	cargo test --test interop

check: fmt clippy docs licences unused ## what has no test

fmt:
	cargo fmt --all -- --check

clippy:
	cargo clippy --workspace --all-targets -- --deny warnings
	cargo clippy --test interop -- --deny warnings # not one of all targets: it is run by name

docs:
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --document-private-items

licences:
	scripts/need-tool cargo-deny
	cargo deny --log-level error check licenses bans sources

unused:
	scripts/need-tool cargo-machete
	cargo machete

soak: ## 1,000 kills and a minute of fuzzing; takes long
	scripts/need rust postgres
	PLIMSOLL_KILLS=1000 cargo test --test it -- daemon::kills --nocapture
	$(MAKE) fuzz SECONDS=60

SECONDS ?= 600

fuzz: ## what endpoints send, against the parser; SECONDS=600
	scripts/need rust nightly
	scripts/need-tool cargo-fuzz
	mkdir -p fuzz/corpus/exposition # what it finds goes there, and is where the next run begins
	cargo +nightly fuzz run exposition fuzz/corpus/exposition core/tests/fixtures/exposition \
	  -- -max_total_time=$(SECONDS) -max_len=65536 -dict=fuzz/exposition.dict

# What measures has a profile of its own, so that target/release/plimsoll stays what is shipped.
MEASURE = cargo bench --profile measuring --bench line --
LATER = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/plimsoll
LATER_EXPORTER = $(LATER)/prometheus-postgres-exporter-trixie
BOUNCER_EXPORTER = $(LATER)/prometheus-pgbouncer-exporter-trixie

bench: ## what Plimsoll costs, beside the exporters; 35 min on a quiet machine; BENCH="poll --ticks 20"
	scripts/need rust postgres exporter
	scripts/poolers 1.18
	scripts/later-package trixie prometheus-pgbouncer-exporter $(BOUNCER_EXPORTER)
	cargo build --release
	$(MEASURE) $(BENCH) \
	  --bouncer-exporter $(BOUNCER_EXPORTER)/usr/bin/prometheus-pgbouncer-exporter

bench-blind: ## the staged faults, and what exporters and Plimsoll say of them; 7 min
	scripts/need rust postgres exporter
	scripts/later-package trixie prometheus-postgres-exporter $(LATER_EXPORTER)
	cargo build --release
	$(MEASURE) blind $(BENCH) \
	  --exporters /usr/bin/prometheus-postgres-exporter:$(LATER_EXPORTER)/usr/bin/prometheus-postgres-exporter

bench-publish: ## puts the tables that were measured last into README.md and docs/benchmarks.md
	$(MEASURE) publish
