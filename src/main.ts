/** The process: argv, one command, one exit code. */
process.exitCode = 2
