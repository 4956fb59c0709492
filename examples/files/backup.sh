#!/bin/sh
# Copies a folder to a dated archive and keeps the last seven.
set -eu

source_dir=${1:?usage: backup.sh FOLDER}
target_dir=${BACKUP_DIR:-/var/backups}
name=$(basename "$source_dir")

tar -czf "$target_dir/$name-$(date +%Y%m%d).tar.gz" -C "$source_dir" .
ls -1t "$target_dir/$name"-*.tar.gz | tail -n +8 | while read -r old; do
  rm -- "$old"
done
