#!/bin/sh
# As root on the machine, with bot.yaml, machinebot-agent.service and join-secret beside it. Debian and Ubuntu need the package
# python3-venv for it. It may run again; join-secret is only there for the first join.
set -e
groupadd --force deployers
id machinebot >/dev/null 2>&1 || useradd --system --user-group --shell /usr/sbin/nologin machinebot
python3 -m venv /opt/machinebot
/opt/machinebot/bin/pip install machinebot
install -d -m 0755 /etc/machinebot
install -m 0644 bot.yaml /etc/machinebot/bot.yaml
test ! -e join-secret || install -p -m 0600 -o machinebot join-secret /etc/machinebot/join-secret
install -m 0644 machinebot-agent.service /etc/systemd/system/machinebot-agent.service
systemctl daemon-reload
systemctl enable machinebot-agent.service
# It returns when the first round is over, whether that went well or not.
systemctl restart machinebot-agent.service || true
# Files of an earlier join prove nothing: the identity must be newer than the secret.
if test ! -e /run/machinebot/ssh/key-cert.pub || test /etc/machinebot/join-secret -nt /var/lib/machinebot/identity.json; then
  echo "install.sh: the agent has not joined; why: journalctl --unit machinebot-agent.service" >&2
  exit 1
fi
rm -f join-secret /etc/machinebot/join-secret # used up
