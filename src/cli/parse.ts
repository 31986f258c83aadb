/** From argv and environment to one command with its options. Pure. */
import {
  COMMANDS,
  type Command,
  commandsUnder,
  findCommand,
  GLOBAL_OPTIONS,
  type Option,
} from './table.ts'

/** A mistake on the command line: exit code 2. `message` is one line. */
export type Mistake = { readonly kind: 'mistake'; readonly message: string; readonly json: boolean }

export type Call = {
  readonly kind: 'call'
  readonly command: Command
  readonly args: readonly string[]
  /** Values by option name; a flag has `true`. The environment is already in it. */
  readonly options: ReadonlyMap<string, string | true>
  readonly json: boolean
  readonly help: boolean
}

export type Environment = Readonly<Record<string, string | undefined>>

/**
 * Options may stand anywhere; after `--` nothing is an option. A value may follow its option or
 * an `=`. What the command line does not give may come from the option's environment variable.
 */
export function parseCommandLine(
  argv: readonly string[],
  environment: Environment,
): Call | Mistake {
  const json = argv.includes('--json')
  const mistake = (message: string): Mistake => ({ kind: 'mistake', message, json })

  const words: string[] = []
  const given = new Map<string, string | true>()
  let optionsEnd = false
  for (let at = 0; at < argv.length; at += 1) {
    const word = argv[at] ?? ''
    if (optionsEnd || !/^-[^\d]/.test(word)) {
      words.push(word)
      continue
    }
    if (word === '--') {
      optionsEnd = true
      continue
    }
    const equals = word.indexOf('=')
    const name = SHORT[word] ?? (equals < 0 ? word : word.slice(0, equals))
    const option = anyOption(name)
    if (option === null) return mistake(`unknown option ${name}. See "postern help".`)
    if (option.value === null) {
      if (equals >= 0) return mistake(`${name} takes no value.`)
      given.set(name, true)
      continue
    }
    const value = equals >= 0 ? word.slice(equals + 1) : argv[at + 1]
    if (value === undefined) return mistake(`${name} needs a value: ${name} ${option.value}.`)
    if (equals < 0) at += 1
    given.set(name, value)
  }

  if (given.has('--version')) words.splice(0, words.length, 'version')
  const help = given.has('--help')
  const [first = 'help', second = ''] = words
  const command = findCommand(`${first} ${second}`) ?? findCommand(first)
  if (command === null) {
    const below = commandsUnder(first).map(({ path }) => path.slice(first.length + 1))
    if (below.length === 0) return mistake(`unknown command "${first}". See "postern help".`)
    if (help) {
      const call = { command: findCommand('help') as Command, args: [first], options: given }
      return { kind: 'call', ...call, json, help: false }
    }
    return mistake(`"${first}" needs one of: ${below.join(', ')}.`)
  }
  const args = words.slice(words.length === 0 ? 0 : command.path.split(' ').length)
  if (help) return { kind: 'call', command, args, options: given, json, help }

  for (const name of given.keys()) {
    if (!optionsOf(command).some((option) => option.name === name)) {
      return mistake(`"${command.path}" has no option ${name}. See "postern help ${command.path}".`)
    }
  }
  const wrong = countArguments(command, args)
  if (wrong !== null) return mistake(wrong)
  return {
    kind: 'call',
    command,
    args,
    options: withEnvironment(command, given, environment),
    json,
    help,
  }
}

const SHORT: Readonly<Record<string, string>> = { '-h': '--help', '-V': '--version' }

function anyOption(name: string): Option | null {
  const all = [...GLOBAL_OPTIONS, ...COMMANDS.flatMap(({ options }) => options)]
  return all.find((option) => option.name === name) ?? null
}

function optionsOf(command: Command): readonly Option[] {
  return [...command.options, ...GLOBAL_OPTIONS]
}

function countArguments({ path, args: wanted }: Command, args: readonly string[]): string | null {
  const least = wanted.filter(({ need }) => need === 'one').length
  const most = wanted.some(({ need }) => need === 'many') ? Number.POSITIVE_INFINITY : wanted.length
  const missing = wanted[args.length]
  if (args.length < least)
    return `"${path}" needs ${missing?.name ?? 'more'}. See "postern help ${path}".`
  if (args.length > most)
    return `"${path}" does not take "${args[most] ?? ''}". See "postern help ${path}".`
  return null
}

function withEnvironment(
  command: Command,
  given: ReadonlyMap<string, string | true>,
  environment: Environment,
): ReadonlyMap<string, string | true> {
  const options = new Map(given)
  for (const { name, value, env } of optionsOf(command)) {
    const text = env === null ? undefined : environment[env]
    if (options.has(name) || text === undefined || text === '') continue
    if (value !== null) options.set(name, text)
    else if (!/^(0|false|no|off)$/i.test(text)) options.set(name, true)
  }
  return options
}
