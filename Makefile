# Everything starts here: `make demo` shows it, `make test` proves it.

CARGO ?= cargo
# The tests wait for servers more than they compute.
export RUST_TEST_THREADS ?= $(shell expr 2 \* $$(nproc))

.PHONY: help demo test test-quick test-integration test-all-versions postgres-18 postgres-versions campaign campaign-copies campaign-resyncs campaign-ddl campaign-plans build check

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Show on two throw-away servers how a report follows the master data
	@scripts/postgres
	$(CARGO) run --release --locked -- demo

test: ## Run every test; those with servers make their own, on PostgreSQL 18 too if it was fetched
	@scripts/postgres
	$(CARGO) test --locked --doc
	$(CARGO) test --locked --lib --bins --test pure
	@if [ -x .postgres/18/bin/postgres ]; then \
		scripts/postgres-versions 18 && CARGO=$(CARGO) scripts/test-versions found 18-18; \
	else \
		CARGO=$(CARGO) scripts/test-versions found && \
		echo "Not run on PostgreSQL 18, which is not here: make postgres-18 fetches it."; \
	fi

test-quick: ## Run the tests that need no server
	$(CARGO) test --locked --lib --bins --test pure -- --skip model::server

test-integration: ## Run the tests with tools from outside: containers, Java, brokers, browsers
	@CARGO=$(CARGO) scripts/test-integration

test-all-versions: ## Run the tests with servers on every version and pairing
	@scripts/postgres
	CARGO=$(CARGO) scripts/test-versions

postgres-18: ## Fetch the server programs of PostgreSQL 18 into .postgres
	@scripts/postgres-versions 18

postgres-versions: ## Fetch those of all the versions that are not installed
	@scripts/postgres-versions

campaign: ## Hunt for lost and mixed states for some 15 minutes (CDC_TEST_SEED replays)
	@scripts/postgres
	CDC_TEST_SECONDS=$${CDC_TEST_SECONDS:-60} CDC_TEST_KILLS=$${CDC_TEST_KILLS:-100} \
		$(CARGO) test --locked --test workload -- --nocapture --test-threads 2

# On PostgreSQL 18 if it was fetched and nothing else is asked for.
ON_18 = if [ -x .postgres/18/bin/postgres ]; then \
		export CDC_TEST_SOURCE_BIN="$${CDC_TEST_SOURCE_BIN:-$$PWD/.postgres/18/bin}"; \
		export CDC_TEST_TARGET_BIN="$${CDC_TEST_TARGET_BIN:-$$PWD/.postgres/18/bin}"; \
	fi

campaign-copies: ## Copy 1,000 times beside 16 writers; nothing may be lost at the source (CDC_TEST_COPIES)
	@scripts/postgres
	@$(ON_18); CDC_TEST_COPIES=$${CDC_TEST_COPIES:-1000} \
		$(CARGO) test --locked --test servers copies_beside -- --nocapture

campaign-resyncs: ## Resync and compare 1,000 times beside 16 writers; nothing may differ (CDC_TEST_RESYNCS)
	@scripts/postgres
	@$(ON_18); CDC_TEST_RESYNCS=$${CDC_TEST_RESYNCS:-1000} \
		$(CARGO) test --locked --test workload resync_beside -- --nocapture

campaign-ddl: ## Alter source tables at random in 200 rounds (CDC_TEST_ROUNDS; CDC_TEST_SEED replays)
	@scripts/postgres
	CDC_TEST_ROUNDS=$${CDC_TEST_ROUNDS:-200} $(CARGO) test --locked --test workload ddl::lookups -- --nocapture

campaign-plans: ## Write every shape of a batch at 10,000 and 40,000 rows without statistics (CDC_TEST_PLAN_ROWS)
	@scripts/postgres
	CDC_TEST_PLAN_ROWS=$${CDC_TEST_PLAN_ROWS:-40000} $(CARGO) test --locked --test writer plans -- --nocapture

build: ## Build target/release/cdc
	$(CARGO) build --release --locked

check: ## Check format, lints, documentation and dependencies
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --locked
	scripts/deny
