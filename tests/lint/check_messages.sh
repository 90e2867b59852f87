#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every message of the programs is explained in docs/errors.md. There, a message is written in
# backquotes with words in capitals where the source has a conversion (%s); what is compared is the
# fixed text between the conversions, in order, on one line.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
# shellcheck disable=SC2016  # perl's variables, not the shell's
files 'guides-api/*.c' 'rdma/*.c' 'ept/*.c' 'fault/*.c' 'vmm/*.c' 'memserver/*.c' |
    xargs perl -e '
    open(my $docs, "<", "docs/errors.md") or die "docs/errors.md: $!\n";
    my @lines = <$docs>;
    my $missing = 0;
    for my $file (@ARGV) {
        open(my $in, "<", $file) or die "$file: $!\n";
        my $text = do { local $/; <$in> };
        # The format may be several literals, with PRIu64 and the like between them.
        while ($text =~ /\b(?:message_error|message_warning|cli_usage_error|vcpu_fatal)\(\s*(?:vcpu,\s*)?((?:"(?:[^"\\]|\\.)*"|PRI[a-zA-Z0-9]+|\s)+)/g) {
            my $line = 1 + (substr($text, 0, $-[0]) =~ tr/\n//);
            my $format = join("", map { s/^PRI.*//r } ($1 =~ /"((?:[^"\\]|\\.)*)"|PRI\w+/g));
            $format =~ s/%%/\x01/g;
            my @parts = grep { /[a-z]{3}/ } split(/%[-+ #0-9.*]*(?:hh|h|ll|l|z|j)?[a-zA-Z]?/, $format);
            s/\x01/%/g, s/\\"/"/g, s/^[ :]+|(?: 0x|[ :(])+$//g for @parts;
            next unless @parts;
            my $pattern = join(".*", map { quotemeta } @parts);
            next if grep { /$pattern/ } @lines;
            print "$file:$line: not explained in docs/errors.md: $format\n";
            $missing = 1;
        }
    }
    exit $missing;'
