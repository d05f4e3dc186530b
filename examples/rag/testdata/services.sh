#!/bin/sh
# Runs a command with a Redis and a PostgreSQL of its own, and stops them after it:
#
#	examples/rag/testdata/services.sh go test ./examples/...
#
# The command sees REDIS_URL and DATABASE_URL. The servers are Debian's (redis-server, postgresql); as root, what is missing is
# installed. They listen on sockets in a temporary directory, where their data is too: no port is taken, no other server touched.
set -eu

say() { echo "services.sh: $*" >&2; }

[ $# -gt 0 ] || { say "want a command to run, such as: $0 go test ./examples/..."; exit 2; }

# The newest PostgreSQL under Debian's directory, or the one in PATH.
pg_bin() {
	newest=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
	if [ -n "$newest" ] && [ -x "$newest/initdb" ]; then
		echo "$newest"
	elif command -v initdb >/dev/null; then
		dirname "$(command -v initdb)"
	fi
}

missing=""
command -v redis-server >/dev/null || missing="$missing redis-server"
[ -n "$(pg_bin)" ] || missing="$missing postgresql"
if [ -n "$missing" ]; then
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { say "install$missing first, or run as root on Debian"; exit 1; }
	say "installing$missing"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q >&2
	# shellcheck disable=SC2086 # a list of packages
	apt-get install -q -y --no-install-recommends $missing >&2
fi

pg=$(pg_bin)
dir=$(mktemp -d)
chmod 755 "$dir"

# PostgreSQL refuses to run as root; Debian's package has made a user for it.
as_postgres() {
	if [ "$(id -u)" = 0 ]; then
		(cd / && setpriv --reuid=postgres --regid=postgres --init-groups "$@")
	else
		"$@"
	fi
}

stop() {
	status=$?
	trap - EXIT INT TERM
	[ -z "${redis_pid:-}" ] || kill "$redis_pid" 2>/dev/null || true
	[ ! -f "$dir/pg/postmaster.pid" ] || as_postgres "$pg/pg_ctl" -D "$dir/pg" -m immediate stop >/dev/null || true
	rm -rf "$dir"
	exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

redis-server --port 0 --unixsocket "$dir/redis.sock" --dir "$dir" --save '' --appendonly no >"$dir/redis.log" 2>&1 &
redis_pid=$!

mkdir "$dir/pg"
[ "$(id -u)" != 0 ] || chown postgres "$dir/pg"
as_postgres "$pg/initdb" -D "$dir/pg" -U rag --auth=trust --no-sync >/dev/null
as_postgres "$pg/pg_ctl" -D "$dir/pg" -l "$dir/pg/server.log" -w -o "-F -c listen_addresses='' -k $dir/pg" start >/dev/null ||
	{ cat "$dir/pg/server.log" >&2; say "PostgreSQL does not start"; exit 1; }

tries=0
until [ -S "$dir/redis.sock" ]; do
	tries=$((tries + 1))
	[ "$tries" -lt 100 ] && kill -0 "$redis_pid" 2>/dev/null || { cat "$dir/redis.log" >&2; say "Redis does not start"; exit 1; }
	sleep 0.1
done

export REDIS_URL="unix://$dir/redis.sock"
export DATABASE_URL="postgres://rag@/postgres?host=$dir/pg"
"$@"
