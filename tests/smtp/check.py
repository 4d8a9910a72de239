"""Serves SMTP with aiosmtpd while the channel's test sends to it, then reads what came as a mail program would."""

import email.policy
import os
import pathlib
import socket
import ssl
import subprocess
import sys

from aiosmtpd.controller import Controller

WORK = pathlib.Path(sys.argv[1])
TEST = ["cargo", "test", "--quiet", "--locked", "--lib", "channels::tests::a_real_server_takes_it_if_one_is_named"]


class Store:
    def __init__(self):
        self.messages = []

    async def handle_DATA(self, server, session, envelope):
        self.messages.append((envelope, session.ssl is not None))
        return "250 2.0.0 stored"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def deliver(tls):
    store = Store()
    options = {}
    environment = dict(os.environ)
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(WORK / "server.pem", WORK / "server.key")
        options = {"tls_context": context, "require_starttls": True}
        environment["FLYWHEEL_TEST_SMTP_CA"] = str(WORK / "ca.pem")
    port = free_port()
    controller = Controller(store, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        environment["FLYWHEEL_TEST_SMTP_PORT"] = str(port)
        subprocess.run(TEST, env=environment, check=True, stdout=subprocess.DEVNULL)
    finally:
        controller.stop()
    return store.messages


def check(messages, tls):
    ids = set()
    for envelope, was_encrypted in messages:
        assert was_encrypted == tls
        assert (envelope.mail_from, envelope.rcpt_tos) == ("bounces@shop.example", ["ada@example.com"])
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert not mail.defects, mail.defects
        assert mail["Subject"] == "Grüße" and mail["To"] == "ada@example.com"
        assert mail["List-Unsubscribe"] == "<https://shop.example/m/unsubscribe/token>"
        assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert mail.get_content_type() == "multipart/alternative"
        text = mail.get_body(("plain",)).get_content().splitlines()
        assert text == ["Hello.", ".", "A line that begins with a dot is doubled."], text
        assert mail.get_body(("html",)).get_content().strip() == "<p>Hällo</p>"
        ids.add(mail["Message-ID"])
    assert len(messages) == len(ids) == 3, f"{len(messages)} messages, {len(ids)} ids"


for tls in (False, True):
    check(deliver(tls), tls)
    print(f"smtp {'with STARTTLS' if tls else 'in the clear'}: 3 of 3 arrived, each once")
