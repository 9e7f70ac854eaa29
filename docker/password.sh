#!/bin/sh
# Runs once, when the postgres image initialises a server: gives the role cdc its password, from whichever
# secret this server was given.
set -eu

for secret in /run/secrets/cdc_source_password /run/secrets/cdc_target_password; do
    if [ -r "$secret" ]; then
        printf '%s\n' "\\set password \`cat $secret\`" \
            "SET password_encryption = 'scram-sha-256';" \
            "ALTER ROLE cdc PASSWORD :'password';" |
            psql -v ON_ERROR_STOP=1 --no-psqlrc -q -U "$POSTGRES_USER" -d "$POSTGRES_DB"
    fi
done
