/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `farvisor doctor`: is this host fit to run guests? One line a check, each with what was found
 * and, where something is wrong, the command that mends it. Changes nothing on the host. Exit
 * status 0 when guests can run here (warnings allowed), 1 when they cannot.
 */
#include "vmm/cli/cli.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char doctor_usage[] = "farvisor doctor [OPTIONS]";

static int doctor_failures;
static json_t *doctor_json; /* the report's lines, or NULL for text */

static int set_json(void *config, const char *value)
{
    (void)value;
    *(bool *)config = true;
    return 0;
}

static int set_help(void *config, const char *value)
{
    (void)config;
    (void)value;
    cli_help_exit(cli_doctor_options, doctor_usage,
                  "Checks whether this host can run guests. Exit status 0: yes, 1: no.");
}

const struct option_spec cli_doctor_options[] = {
    {"json", 0, NULL, "report as JSON", set_json},
    {"help", 'h', NULL, "this text", set_help},
    {NULL, 0, NULL, NULL, NULL},
};

void doctor_line(enum doctor_verdict verdict, const char *topic, const char *remedy,
                 const char *format, ...)
{
    static const char *const names[] = {"ok", "warn", "FAIL"};
    char found[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(found, sizeof(found), format, arguments);
    va_end(arguments);
    if (verdict == DOCTOR_FAIL)
        doctor_failures++;
    if (doctor_json) {
        json_array_append_new(doctor_json,
                              json_pack("{s:s, s:s, s:s, s:s*}", "verdict", names[verdict], "topic",
                                        topic, "found", found, "remedy", remedy));
        return;
    }
    printf("%-5s %-14s %s\n", names[verdict], topic, found);
    if (remedy)
        printf("%20s -> %s\n", "", remedy);
}

bool doctor_read_line(const char *path, char *line, size_t bytes)
{
    FILE *file = fopen(path, "re");

    if (!file)
        return false;
    bool good = fgets(line, (int)bytes, file) != NULL;
    fclose(file);
    if (good)
        line[strcspn(line, "\n")] = '\0';
    return good;
}

static void doctor_print_json(void)
{
    json_t *report = json_pack("{s:s, s:b, s:o}", "version", FV_VERSION, "fit",
                               doctor_failures == 0, "checks", doctor_json);

    if (report)
        json_dumpf(report, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(report);
}

int cli_doctor(int argc, char **argv)
{
    bool as_json = false;
    int operands = options_parse(cli_doctor_options, "farvisor doctor", &as_json, argc, argv);

    if (operands < 0)
        return EXIT_FARVISOR;
    if (operands < argc)
        return cli_usage_error("doctor: unexpected '%s'", argv[operands]);
    doctor_json = as_json ? json_array() : NULL;
    doctor_check_kvm();
    doctor_check_paging();
    doctor_check_host();
    doctor_check_files();
    if (doctor_json)
        doctor_print_json();
    else
        puts(doctor_failures ? "This host cannot run guests yet." : "This host can run guests.");
    if (fflush(stdout) || ferror(stdout)) {
        message_error("cannot write to standard output: %s", strerror(errno));
        return EXIT_FARVISOR;
    }
    return doctor_failures ? 1 : 0;
}
