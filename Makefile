# Everything starts here: `make demo` shows it, `make test` proves it.

CARGO ?= cargo

.PHONY: help demo test build check

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Show on two throw-away servers how a report follows the master data
	@scripts/postgres
	$(CARGO) run --release --locked -- demo

test: ## Run every test; those with servers make their own
	@scripts/postgres
	$(CARGO) test --locked

build: ## Build target/release/cdc
	$(CARGO) build --release --locked

check: ## Check format, lints and documentation
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked
