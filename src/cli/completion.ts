/** Completion scripts for bash, zsh and fish, from the table of commands. */
import { COMMANDS, type Command, commandsUnder, GLOBAL_OPTIONS, type Option } from './table.ts'

export const SHELLS = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof SHELLS)[number]

export function completionScript(shell: Shell): string {
  return shell === 'bash' ? bash() : shell === 'zsh' ? zsh() : fish()
}

/** Words that may follow the words typed so far, by these words. */
function branches(): readonly (readonly [typed: string, next: readonly string[]])[] {
  const commands = COMMANDS
  const firsts = [...new Set(commands.map(({ path }) => path.split(' ')[0] ?? ''))]
  const below = firsts.map((first) => {
    const seconds = commands
      .filter(({ path }) => path.startsWith(`${first} `))
      .map(({ path }) => path.slice(first.length + 1))
    return [first, [...seconds, ...namesOf(commands.find(({ path }) => path === first))]] as const
  })
  const whole = commands
    .filter(({ path }) => path.includes(' '))
    .map((command) => [command.path, namesOf(command)] as const)
  return [
    ['', [...firsts, ...namesOf(undefined)]],
    ...below.filter(([first]) => first !== 'completion' && first !== 'help'),
    ['completion', SHELLS],
    ['help', firsts],
    ...whole,
  ]
}

function namesOf(command: Command | undefined): string[] {
  const all = [...(command?.options ?? []), ...GLOBAL_OPTIONS]
  return all.filter(({ hidden }) => !hidden).map(({ name }) => name)
}

/** Options whose value is a word of its own: the word after them completes as a file. */
function valued(): string[] {
  const all: readonly Option[] = [...GLOBAL_OPTIONS, ...COMMANDS.flatMap((c) => c.options)]
  return [...new Set(all.filter(({ value }) => value !== null).map(({ name }) => name))]
}

function bash(): string {
  const cases = branches().map(([typed, next]) => `    "${typed}") words="${next.join(' ')}" ;;`)
  return `_postern() {
  local current=\${COMP_WORDS[COMP_CWORD]} typed= words= skip= word count=0
  COMPREPLY=()
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ -n $skip ]]; then skip=; continue; fi
    case $word in
      ${valued().join('|')}) skip=1 ;;
      -*) ;;
      *) if ((count < 2)); then typed+="\${typed:+ }$word"; fi; count=$((count + 1)) ;;
    esac
  done
  if [[ -n $skip ]]; then COMPREPLY=($(compgen -f -- "$current")); return; fi
  case $typed in
${cases.join('\n')}
    *) typed=\${typed%% *}; words="${namesOf(undefined).join(' ')}" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _postern postern
`
}

function zsh(): string {
  const cases = branches().map(([typed, next]) => `    "${typed}") choices=(${next.join(' ')}) ;;`)
  return `#compdef postern
_postern() {
  local typed= skip= word
  local -a choices
  integer count=0
  for word in "\${(@)words[2,CURRENT-1]}"; do
    if [[ -n $skip ]]; then skip=; continue; fi
    case $word in
      (${valued().join('|')}) skip=1 ;;
      (-*) ;;
      (*) if ((count < 2)); then typed+="\${typed:+ }$word"; fi; count+=1 ;;
    esac
  done
  if [[ -n $skip ]]; then _files; return; fi
  case $typed in
${cases.join('\n')}
    *) choices=(${namesOf(undefined).join(' ')}) ;;
  esac
  compadd -- "\${(@)choices}"
}
compdef _postern postern
`
}

function fish(): string {
  const quote = (text: string) => `'${text.replaceAll("'", "\\'")}'`
  const lines = COMMANDS.flatMap(({ path, summary, options }) => {
    const [first = '', second] = path.split(' ')
    const seen = `__fish_seen_subcommand_from ${second ?? first}`
    const within = second === undefined ? seen : `__fish_seen_subcommand_from ${first}; and ${seen}`
    const when =
      second === undefined
        ? '__fish_use_subcommand'
        : `__fish_seen_subcommand_from ${first}; and not __fish_seen_subcommand_from ${secondsOf(first)}`
    return [
      `complete -c postern -f -n ${quote(when)} -a ${second ?? first} -d ${quote(summary)}`,
      ...options
        .filter(({ hidden }) => !hidden)
        .map(
          ({ name, value, help }) =>
            `complete -c postern -n ${quote(within)} -l ${name.slice(2)}${value === null ? '' : ' -r'} -d ${quote(help)}`,
        ),
    ]
  })
  const firsts = groups().map(
    (first) => `complete -c postern -f -n '__fish_use_subcommand' -a ${first}`,
  )
  const globals = GLOBAL_OPTIONS.map(
    ({ name, value, help }) =>
      `complete -c postern -l ${name.slice(2)}${value === null ? '' : ' -r'} -d ${quote(help)}`,
  )
  return `${[...globals, ...firsts, ...lines].join('\n')}\n`
}

function secondsOf(first: string): string {
  return commandsUnder(first)
    .map(({ path }) => path.slice(first.length + 1))
    .join(' ')
}

/** First words that are no command themselves. */
function groups(): string[] {
  const paths = COMMANDS.map(({ path }) => path)
  const firsts = new Set(
    paths.filter((path) => path.includes(' ')).map((path) => path.split(' ')[0] ?? ''),
  )
  return [...firsts].filter((first) => !paths.includes(first))
}
