# `make` alone says what there is.
.DEFAULT_GOAL := help
.PHONY: model help run test test-busy test-postgres test-postgres-smoke test-pooler test-upgrade check console consumers bench bench-attach bench-fanout bench-instructions bench-delivery bench-ingest bench-nodes bench-migrate bench-client bench-smoke burst chaos mutations conformance hostile fuzz fuzz-smoke clean

TARGET = $${CARGO_TARGET_DIR:-target}

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Serve, with a private PostgreSQL of its own: make run ARGS="--listen 127.0.0.1:9000"
	@sh scripts/setup.sh run
	cargo build --release --locked
	exec $(TARGET)/release/hushnet-realtime run $(ARGS)

test: ## Run every test against a real PostgreSQL, on free ports
	@sh scripts/setup.sh test
	cargo test --workspace --locked
	program=$$(realpath $(TARGET))/debug/hushnet-realtime && \
	HUSHNET_REALTIME_BIN=$$program npm test --prefix clients/typescript && \
	npm run check --prefix clients/console && \
	HUSHNET_REALTIME_BIN=$$program npm test --prefix clients/console

test-busy: ## The same beside two busy loops for each core: no test may depend on the machine's speed
	sh scripts/busy.sh $(MAKE) test

test-postgres: ## The same against one version of PostgreSQL, 15 to 18: make test-postgres VERSION=17
	@sh scripts/setup.sh postgres $(VERSION)
	DEVDB_POSTGRES_BIN=$$PWD/.hushnet/postgresql/$(VERSION)/native/bin $(MAKE) test

# The tests of the service that depend most on PostgreSQL, by the beginnings of their names.
POSTGRES_SMOKE = migrations:: sources:: retention:: triggers:: truncate:: ingest:: log_switch:: resume:: statements:: \
	history:: durability:: identity::doubts:: wal::

test-postgres-smoke: ## The short form of it, without the clients: make test-postgres-smoke VERSION=18
	@sh scripts/setup.sh postgres $(VERSION)
	DEVDB_POSTGRES_BIN=$$PWD/.hushnet/postgresql/$(VERSION)/native/bin \
	cargo test --workspace --locked --test realtime -- $(POSTGRES_SMOKE)

test-pooler: ## The same behind PgBouncer in session mode; VERSION=18 for another than Debian's, TESTS=resume:: for some
	@sh scripts/setup.sh test
	@[ -z "$(VERSION)" ] || sh scripts/setup.sh postgres $(VERSION)
	$(if $(VERSION),DEVDB_POSTGRES_BIN=$$PWD/.hushnet/postgresql/$(VERSION)/native/bin) \
	TEST_POOLER=session cargo test --workspace --locked --test realtime -- $(or $(TESTS),$(POSTGRES_SMOKE))

# The newest commit that has been released.
RELEASE_BEFORE = 1cd145db216574ad25fd15963f1d2d552e761fe0

test-upgrade: ## Upgrade from the release before with both programs at work; builds that one, for minutes
	@sh scripts/setup.sh run
	cargo build --workspace --locked
	@program=$$(sh scripts/release-before.sh $(RELEASE_BEFORE)) || { [ $$? = 3 ] && exit 0; exit 1; }; \
	RELEASE_BEFORE=$$program cargo test --workspace --locked --test realtime upgrade -- --nocapture

check: ## Check the format, clippy's lints, and the dependencies
	@sh scripts/setup.sh check
	cargo fmt --all --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo fmt --check --manifest-path crates/websocket/fuzz/Cargo.toml
	cargo clippy --workspace --all-targets --locked -- -D warnings
# The fuzz targets are not of this workspace. With its profile what both depend on is checked once.
	for crate in fuzz crates/websocket/fuzz; do \
	CARGO_PROFILE_DEV_DEBUG=true cargo clippy --locked --manifest-path $$crate/Cargo.toml --target-dir $(TARGET) -- -D warnings \
	|| exit 1; done
	sh scripts/deny.sh

console: ## Build the page at /console anew, from clients/console into src/http/console
	@sh scripts/setup.sh test
	npm run build --prefix clients/console

consumers: ## Use the TypeScript client as packed in projects of Jest, Next, Metro and others; some by ARGS="jest next"
	@sh scripts/setup.sh test
	node clients/consumers/run.mjs $(ARGS)

bench: ## Measure beside the limit and the predecessor; takes half an hour
	@sh scripts/setup.sh run
	cargo build --examples --profile injector --locked --features injector
	@# The programs last and by themselves: with the examples they would have the tests' features of tokio.
	cargo build --workspace --bins --profile injector --locked --features hushnet-realtime/injector
	@python3 scripts/bench.py $(ARGS)

bench-fanout: ## Measure what an event costs in the process, without sockets; takes minutes
	@sh scripts/setup.sh run
	cargo bench --locked --bench fanout
	@python3 scripts/bench-table.py

model: ## Try the nodes' protocol in every schedule of larger worlds, and in random ones of large worlds; takes many minutes
	NODES_MODEL_SCHEDULES=$${NODES_MODEL_SCHEDULES:-50000} \
	cargo test --release --workspace --locked --lib model::nodes -- --include-ignored

bench-instructions: ## Count the instructions of an event's way, and hold them to what they were
	@sh scripts/setup.sh instructions
	GUNGRAUN_RUNNER=$$PWD/.hushnet/tools/bin/gungraun-runner cargo bench --locked --bench instructions

bench-delivery: ## Measure from commit to client; one part by ARGS="latency", "storm", "cold" or "burst"
	@sh scripts/setup.sh run
	cargo bench --locked --bench delivery -- $(ARGS)

bench-attach: ## Measure what the events of a table of one's own cost its writers, by trigger and audience; takes minutes
	@sh scripts/setup.sh run
	cargo bench --locked --bench attach

bench-ingest: ## Measure what the triggers cost the application; takes minutes
	@sh scripts/setup.sh run
	cargo build --workspace --bins --release --locked
	python3 scripts/bench-ingest.py $(ARGS)

bench-nodes: ## Measure many nodes: what they cost PostgreSQL, the bus and each other, and how long a failover takes; takes two hours
	@sh scripts/setup.sh test
	cargo build --workspace --bins --profile injector --locked --features hushnet-realtime/injector
	python3 scripts/bench-nodes.py $(ARGS)

bench-migrate: ## Measure how long writers wait for `migrate up` and `down` on tables of 1,500,000 rows
	@sh scripts/setup.sh run
	MIGRATE_ROWS=$${MIGRATE_ROWS:-1500000} cargo test --locked --test realtime migrations::load -- --nocapture

burst: ## Commit eight million events in one transaction, in each way of ingest, beside the other promises; takes an hour
	@sh scripts/setup.sh run
	BURST_EVENTS=$${BURST_EVENTS:-8000000} cargo test --release --locked --test realtime burst -- --nocapture

chaos: ## Break things for ten minutes, a million events; CHAOS_INGEST=tail, adaptive or wal, CHAOS_SEED=..., BUS=redis, nats or nats-cluster
	@sh scripts/setup.sh $(if $(BUS),test,run)
ifdef BUS
	CHAOS_EVENTS=$${CHAOS_EVENTS:-1000000} CHAOS_WRITERS=40 CHAOS_PACE_MS=20 CHAOS_FAULT_MS=10000 \
	cargo test --release --locked --test chaos nodes::over_$(subst -,_,$(BUS)):: -- --ignored --nocapture --test-threads=1
else
	CHAOS_SECONDS=600 CHAOS_EVENTS=1000000 CHAOS_WRITERS=60 CHAOS_PACE_MS=10 CHAOS_SLACK=$${CHAOS_SLACK:-2} \
	cargo test --release --locked --test chaos -- --nocapture
endif

hostile: ## Have a hundred hostile clients at a time do what they can, and judge the others' latency
	@sh scripts/setup.sh run
	cargo build --profile injector --locked --features injector
	cargo test --locked --test realtime --no-run
	HOSTILE_ROUNDS=5 HOSTILE_PROGRAM=$(TARGET)/injector/hushnet-realtime taskset --cpu-list 1 \
	cargo test --locked --test realtime hostile -- --nocapture --test-threads=1

fuzz: ## Fuzz what parses, five minutes each; needs a nightly compiler
	@sh scripts/setup.sh fuzz
	@sh scripts/fuzz.sh 300

fuzz-smoke: ## The same for twenty seconds in all, where there is a nightly compiler
	@if cargo +nightly --version >/dev/null 2>&1; \
	then sh scripts/setup.sh fuzz && sh scripts/fuzz.sh 4 --dev --sanitizer=none; \
	else echo 'there is no nightly compiler: nothing is fuzzed'; fi

mutations: ## Break the service on purpose, one way after another, and require that its test fails
	@sh scripts/setup.sh run
	@sh scripts/mutations.sh $(ARGS)

conformance: ## Hold the WebSocket's handshake and frames against the Autobahn test suite's cases
	@sh scripts/setup.sh conformance
	cargo build --release --locked --package hushnet-websocket --example echo
	.hushnet/conformance/bin/python scripts/conformance.py $(ARGS) $(TARGET)/release/examples/echo

bench-client: ## Measure what missed events cost a page with each store, in Chromium; ARGS="--events 10000 --throttle 4"
	@sh scripts/setup.sh test
	cargo build --release --locked
	HUSHNET_REALTIME_BIN=$$(realpath $(TARGET))/release/hushnet-realtime node clients/typescript/bench/replay.mjs $(ARGS)

bench-smoke: ## Run each benchmark once, to see that it runs
	@sh scripts/setup.sh instructions
	@sh scripts/setup.sh test
	cargo bench --locked --profile dev --bench fanout --bench delivery --bench attach -- --test
	GUNGRAUN_RUNNER=$$PWD/.hushnet/tools/bin/gungraun-runner cargo bench --locked --profile dev --bench instructions
	cargo build --workspace --bins --examples --locked --features hushnet-realtime/injector
	@python3 scripts/bench.py --test --profile debug
	@python3 scripts/bench-ingest.py --smoke --programs $(TARGET)/debug
	@python3 scripts/bench-nodes.py --smoke --programs $(TARGET)/debug
	@python3 scripts/scale.py --check docs/scale.md
	HUSHNET_REALTIME_BIN=$$(realpath $(TARGET))/debug/hushnet-realtime \
	node clients/typescript/bench/replay.mjs --events 500 --rounds 1

clean: ## Remove what was built and fetched; the database in .hushnet stays
	cargo clean
	rm -rf .hushnet/tools .hushnet/postgresql .hushnet/venv .hushnet/deny tests/clients/node_modules clients/*/node_modules clients/*/dist clients/typescript/react clients/typescript/react-native clients/typescript/testing examples/*/node_modules examples/*/dist
