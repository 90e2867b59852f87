/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line's private parts: what `farvisor run` collects while it reads its options, and
 * who turns which text into which value.
 */
#ifndef FARVISOR_CLI_H
#define FARVISOR_CLI_H

#include "fault/replay.h"
#include "guides-api/support.h"
#include "vmm/vmm.h"

/* Options as read; cli_config_finish makes them a run_config once all are known. */
struct cli {
    struct run_config config;
    const char *memory_text; /* NULL: the default */
    const char *local_text;  /* NULL: as much as --memory */
    size_t env_count;
    char *preload; /* value of LD_PRELOAD when there are guides; owned */
    enum message_level level;
    bool dump_config;
};

/* ---- cli.c: the option tables ---- */
extern const struct option_spec cli_run_options[];
extern const struct option_spec cli_doctor_options[];
extern const struct option_spec cli_replay_options[];
extern const char cli_replay_usage[];
extern const char cli_run_usage[];

/* ---- cli/help.c: everything that only prints; returns the exit status ---- */
int cli_help(int argc, char **argv);
int cli_version(int argc, char **argv);
int cli_completion(int argc, char **argv);
int cli_usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints the option table and ends the program: nothing after --help is looked at. */
_Noreturn void cli_help_exit(const struct option_spec *table, const char *usage, const char *about);
void cli_config_dump(const struct run_config *config);

/* ---- cli/values.c: one setter an option; 0 or -EINVAL after one message ---- */
int cli_set_memory(void *cli, const char *value);
int cli_set_local(void *cli, const char *value);
int cli_set_memserver(void *cli, const char *value);
int cli_set_transport(void *cli, const char *value);
int cli_set_fault_mode(void *cli, const char *value);
int cli_set_prefetch(void *cli, const char *value);
int cli_set_map_ahead(void *cli, const char *value);
int cli_set_polling(void *cli, const char *value);
int cli_set_threads(void *cli, const char *value);
int cli_set_workdir(void *cli, const char *value);
int cli_set_timeout(void *cli, const char *value);
int cli_set_stats(void *cli, const char *value);
int cli_set_trace(void *cli, const char *value);
int cli_set_progress(void *cli, const char *value);
int cli_set_quiet(void *cli, const char *value);
int cli_set_verbose(void *cli, const char *value);
int cli_set_dump_config(void *cli, const char *value);

/* ---- cli/grants.c: what of the host the program gets: environment and directories ---- */
int cli_set_env(void *cli, const char *value);
int cli_set_dir(void *cli, const char *value);
/* Adds NAME=VALUE, which must live as long as the configuration. 0 or -ENOMEM. */
int cli_env_put(struct cli *cli, const char *entry);
/* Its value so far, or NULL. */
const char *cli_env_get(const struct cli *cli, const char *name);
/* The safe part of our own environment; before the options, which override it. 0 or -ENOMEM. */
int cli_env_defaults(struct cli *cli);

/* ---- cli/guides.c ---- */
int cli_set_guide(void *cli, const char *value);
int cli_set_allocator(void *cli, const char *value);
/* Shows the folder of host file `path` and appends the file's guest name to LD_PRELOAD. `number`:
 * of the folder, as the guest sees it. 0 or -errno after one message. */
int cli_preload(struct cli *cli, const char *path, size_t number);
int cli_set_guide_accuracy(void *cli, const char *value);
int cli_set_guide_time(void *cli, const char *value);
/* Puts the guides where the program's ld.so loads them. 0 or -EINVAL after one message. */
int cli_guides_finish(struct cli *cli);

/* ---- cli/net.c: what of the network the program gets ---- */
int cli_set_net(void *cli, const char *value);
int cli_set_publish(void *cli, const char *value);
int cli_set_allow_connect(void *cli, const char *value);
/* Do the three fit together? Adds what looking up names needs. 0 or -EINVAL after one message. */
int cli_net_finish(struct cli *cli);
void cli_net_dump(const struct run_config *config);

/* ---- cli/config.c: sizes against each other and the host ---- */
int cli_config_finish(struct cli *cli); /* 0 or -EINVAL after one message */
void cli_config_free(struct cli *cli);

/* ---- cli/replay.c, replay_report.c: what-if ---- */
#define REPLAY_LIST_MAX 32u
struct replay_size {
    uint64_t pages;
    uint32_t percent; /* of the trace's footprint; 0: given as a size */
};
struct replay_question {
    enum replay_policy policies[REPLAY_POLICIES];
    const struct prefetcher *prefetchers[REPLAY_LIST_MAX];
    struct replay_size sizes[REPLAY_LIST_MAX];
    unsigned policy_count, prefetcher_count, size_count;
    uint64_t latency_ns;
    struct replay_range range;
    const char *csv_path; /* NULL: none */
};
/* Simulates all of it and prints. 0 or -errno after one message. */
int replay_report(const struct replay_question *question, const struct replay_input *input,
                  const struct trace_header *header);

/* ---- doctor/: `farvisor doctor` ---- */
enum doctor_verdict { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };
/* One line of the report: what was looked at, what was found, and the remedy or NULL. */
void doctor_line(enum doctor_verdict verdict, const char *topic, const char *remedy,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));
void doctor_check_kvm(void);
void doctor_check_paging(void);
void doctor_check_host(void);
void doctor_check_files(void);
/* First line of a small file such as those in /sys, without its newline; false if unreadable. */
bool doctor_read_line(const char *path, char *line, size_t bytes);

#endif
