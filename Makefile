# Everything starts here: `make demo` shows it, `make test` proves it.

CARGO ?= cargo

.PHONY: help demo test campaign build check

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Show on two throw-away servers how a report follows the master data
	@scripts/postgres
	$(CARGO) run --release --locked -- demo

test: ## Run every test; those with servers make their own
	@scripts/postgres
	$(CARGO) test --locked

campaign: ## Hunt for lost and mixed states for some 15 minutes (CDC_TEST_SEED replays)
	@scripts/postgres
	CDC_TEST_SECONDS=$${CDC_TEST_SECONDS:-60} CDC_TEST_KILLS=$${CDC_TEST_KILLS:-100} \
		$(CARGO) test --locked --test workload -- --nocapture --test-threads 2

build: ## Build target/release/cdc
	$(CARGO) build --release --locked

check: ## Check format, lints and documentation
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked
