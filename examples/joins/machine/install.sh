#!/bin/sh
# As root on the machine, with bot.yaml, machinebot-agent.service and join-secret beside it.
set -e
groupadd --force deployers
useradd --system --user-group --shell /usr/sbin/nologin machinebot
python3 -m venv /opt/machinebot
/opt/machinebot/bin/pip install machinebot
install -d -m 0755 /etc/machinebot
install -m 0644 bot.yaml /etc/machinebot/bot.yaml
install -m 0600 -o machinebot join-secret /etc/machinebot/join-secret
install -m 0644 machinebot-agent.service /etc/systemd/system/machinebot-agent.service
systemctl enable --now machinebot-agent.service
# Used up: systemctl returns when the first round is over. Where it failed, the secret is still good.
test ! -e /run/machinebot/ssh/key-cert.pub || rm join-secret /etc/machinebot/join-secret
