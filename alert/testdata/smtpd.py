"""A mail server for the tests, on a free port of the loopback interface. It wants TLS and a password, and prints one line of JSON when
it is ready and one for each message it takes. It ends when its standard input does.

    smtpd.py CERT KEY starttls|implicit|plain
"""
import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


def say(**what):
    print(json.dumps(what), flush=True)


def authenticate(server, session, envelope, mechanism, data):
    good = data.login == b"breaker" and data.password == b"hunter2-mail"
    # A server that quotes what it was given is rude, and they exist.
    text = "535 5.7.8 wrong password %s" % data.password.decode()
    return AuthResult(success=good, handled=good, message=None if good else text)


class Handler:
    busy = 2  # how often "later" is told to come back

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody"):
            return "550 5.1.1 no such user here"
        if address.startswith("later") and Handler.busy > 0:
            Handler.busy -= 1
            return "451 4.3.0 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        say(**{"from": envelope.mail_from, "to": envelope.rcpt_tos, "data": envelope.content.decode(), "authenticated": bool(session.authenticated), "tls": session.ssl is not None or server._implicit})
        return "250 OK"


class Server(SMTP):
    _implicit = False


async def main(cert, key, mode):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    options = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False, "hostname": "mail.test"}
    if mode == "starttls":
        options.update(tls_context=context, require_starttls=True, auth_require_tls=True)

    def one():
        server = Server(Handler(), **options)
        server._implicit = mode == "implicit"
        return server

    loop = asyncio.get_running_loop()
    listening = await loop.create_server(one, "127.0.0.1", 0, ssl=context if mode == "implicit" else None)
    say(port=listening.sockets[0].getsockname()[1])
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main(*sys.argv[1:]))
