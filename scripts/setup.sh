# Sourced by the other scripts: what they need from the machine, and how they say what they are doing.
# Installs Debian and Ubuntu packages that are missing, and nothing when none is.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
fail() { printf '\n\033[1;31mError:\033[0m %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root: directly, or through sudo.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif has sudo; then sudo "$@"; else
    fail "this needs root: $* (run it yourself, or install sudo)"
  fi
}

# Installs those of the named Debian packages that are not installed.
packages() {
  if ! has apt-get || ! has dpkg-query; then
    fail "missing tools, and this system has no apt-get. Install what Debian calls: $*"
  fi
  local package missing=()
  for package in "$@"; do
    if ! dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then
      missing+=("$package")
    fi
  done
  [ ${#missing[@]} = 0 ] && return
  say "installing Debian packages: ${missing[*]}"
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" ||
    fail "apt-get could not install ${missing[*]}"
}

# What a build needs: a Rust toolchain, a C compiler (the cipher library, the allocator) and OpenSSL's headers (DTLS 1.2
# with RSA certificates).
build_tools() {
  # rustup writes here, and a shell that was open before does not know it yet.
  [ -d "${CARGO_HOME:-$HOME/.cargo}/bin" ] && PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  has cargo || fail "there is no Rust toolchain. Install one from https://rustup.rs, then run this again."
  local wanted=()
  has cc && has c++ && has make || wanted+=(build-essential)
  if ! has pkg-config || ! pkg-config --exists openssl 2>/dev/null; then wanted+=(pkg-config libssl-dev); fi
  case $(uname -m) in
    x86_64 | aarch64) ;;
    # Elsewhere the cipher library is configured by cmake and its bindings are made on the spot.
    *) has cmake && has clang || wanted+=(cmake clang) ;;
  esac
  if [ ${#wanted[@]} != 0 ]; then packages "${wanted[@]}"; fi
  case $(uname -s) in Linux) ;; *) fail "Ringmain runs on Linux only" ;; esac
}

# Whether this machine can use the multi-buffer cipher backend: a CPU with AVX-512 and VAES, and the library, which is fetched.
# Without it everything works, and SRTP with AES-CM costs three times as much.
can_use_multi_buffer() {
  grep -qw avx512vl /proc/cpuinfo && grep -qw vaes /proc/cpuinfo || return 1
  has_multi_buffer_library && return
  has apt-get && (packages libipsec-mb-dev) && has_multi_buffer_library
}

has_multi_buffer_library() {
  printf '#include <intel-ipsec-mb.h>\n#if IMB_VERSION_NUM < 0x10300\n#error\n#endif\n' | cc -fsyntax-only -x c - 2>/dev/null
}

# The directory where cargo puts what it builds.
target_dir() {
  cargo metadata --format-version 1 --no-deps --locked | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# coturn and its clients, which the TURN server is tested with and measured beside. The daemon of the package is not to run, unless it
# was there before.
turn_clients() {
  [ -x /usr/bin/turnutils_uclient ] && return
  packages coturn
  if has systemctl; then as_root systemctl disable --now coturn >/dev/null 2>&1 || true; fi
}
