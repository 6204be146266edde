"""Mails and calls webhooks whenever Odoo loads, and from a scheduled action: what a forgotten add-on does."""
import logging
import smtplib
import socket
import urllib.request

from odoo import api, models

_logger = logging.getLogger(__name__)

SHOP = 'noise.lifeboat.example'
PATIENCE = 5


def _try(origin, what, call):
    # Whatever comes of it is only told: the drill judges by what its sandbox saw.
    try:
        _logger.info('%s: %s: answered with %s', origin, what, call())
    except Exception as error:  # noqa: BLE001
        _logger.info('%s: %s: %s', origin, what, type(error).__name__)


def _mail(host):
    with smtplib.SMTP(host, 587, timeout=PATIENCE) as server:
        server.sendmail('shop@%s' % SHOP, ['customer@%s' % SHOP], 'Subject: Your order\r\n\r\nfrom a copy\r\n')
    return 'acceptance'


def _hook(url):
    data = b'{"event": "order"}'
    request = urllib.request.Request(url, data=data, headers={'Content-Type': 'application/json'})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.status


def _greet(address, port):
    with socket.create_connection((address, port), timeout=PATIENCE) as connection:
        connection.sendall(b'noise\n')
        return connection.recv(10)


def make(origin):
    _try(origin, 'mail', lambda: _mail('smtp.%s' % SHOP))
    _try(origin, 'mail by address', lambda: _mail('192.0.2.25'))
    _try(origin, 'webhook', lambda: _hook('http://hooks.%s/%s' % (SHOP, origin)))
    _try(origin, 'webhook by address', lambda: _hook('http://192.0.2.80:8080/%s' % origin))
    _try(origin, 'webhook over IPv6', lambda: _hook('http://[2001:db8::80]/%s' % origin))
    _try(origin, 'database elsewhere', lambda: _greet('198.51.100.7', 5432))


class LifeboatNoise(models.AbstractModel):
    _name = 'lifeboat.noise'
    _description = 'Lifeboat noise'

    def _register_hook(self):
        super()._register_hook()
        make('register_hook')

    @api.model
    def from_cron(self):
        make('cron')
