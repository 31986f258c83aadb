/** Help texts and the manual page, from the table of commands. */
import { COMMANDS, type Command, GLOBAL_OPTIONS, type Option } from './table.ts'

/** All commands, one line each. */
export function overviewHelp(): string {
  const commands = COMMANDS
  const width = Math.max(...commands.map((command) => usage(command).length))
  const lines = commands.map((command) => `  ${usage(command).padEnd(width)}  ${command.summary}`)
  return [
    'Postern, an SMTP security gateway.',
    '',
    'Usage: postern [--data DIR] [--json] COMMAND',
    '',
    ...lines,
    '',
    ...optionLines(GLOBAL_OPTIONS),
    '',
    'More: postern help COMMAND. Exit code: 0 done, 1 refused, 2 wrong usage.',
    '',
  ].join('\n')
}

/** One command, or those below a first word. */
export function commandHelp(commands: readonly Command[]): string {
  return commands
    .map((command) =>
      [
        `Usage: postern ${usage(command)}${command.options.length > 0 ? ' [OPTIONS]' : ''}`,
        '',
        command.summary,
        ...(command.options.length > 0 ? ['', ...optionLines(command.options)] : []),
        '',
      ].join('\n'),
    )
    .join('\n')
}

function usage({ path, args }: Command): string {
  const words = args.map(({ name, need }) =>
    need === 'one' ? name : need === 'optional' ? `[${name}]` : `[${name}...]`,
  )
  return [path, ...words].join(' ')
}

function optionLines(options: readonly Option[]): string[] {
  const shown = options.filter(({ hidden }) => !hidden)
  const left = shown.map(({ name, value }) => (value === null ? name : `${name} ${value}`))
  const width = Math.max(...left.map((text) => text.length))
  return shown.map(({ help, env }, at) => {
    const also = env === null ? '' : ` Also ${env}.`
    return `  ${(left[at] ?? '').padEnd(width)}  ${help}${also}`
  })
}

/** The manual page in roff, section 8. */
export function manualPage(version: string): string {
  const options = (list: readonly Option[]): string[] =>
    list.flatMap(({ name, value, help, env }) => [
      '.TP',
      `.B ${roff(name)}${value === null ? '' : ` \\fI${roff(value)}\\fR`}`,
      roff(`${help}${env === null ? '' : ` Also ${env}.`}`),
    ])
  return [
    `.TH POSTERN 8 "" "postern ${roff(version)}" "Postern"`,
    '.SH NAME',
    'postern \\- an SMTP security gateway',
    '.SH SYNOPSIS',
    '.B postern',
    '[\\fB\\-\\-data\\fR \\fIDIR\\fR] [\\fB\\-\\-json\\fR] \\fICOMMAND\\fR',
    '.SH DESCRIPTION',
    'Stands in front of a mail server, inspects every mail, holds the bad and relays the good.',
    '.B postern serve',
    'is the node; every other command talks to it by the socket',
    '.I DIR/control.sock\\fR,',
    'whose file permission is the authentication.',
    '.SH OPTIONS',
    ...options(GLOBAL_OPTIONS),
    '.SH COMMANDS',
    ...COMMANDS.flatMap((command) => [
      `.SS ${roff(usage(command))}`,
      roff(command.summary),
      ...options(command.options),
    ]),
    '.SH EXIT STATUS',
    '0 done, 1 refused with the reason and the remedy on standard error, 2 wrong usage.',
    '',
  ].join('\n')
}

/** Text for roff: dashes that can be copied, no line that begins with a request. */
function roff(text: string): string {
  return text.replaceAll('\\', '\\e').replaceAll('-', '\\-').replace(/^[.']/, '\\&$&')
}
