/** From a command line to an exit code: 0 done, 1 refused, 2 wrong usage. */
import { GatewayError, RefusalError } from '../base/errors.ts'
import { VERSION } from '../base/version.ts'
import { completionScript, SHELLS } from './completion.ts'
import { commandHelp, manualPage, overviewHelp } from './help.ts'
import { parseCommandLine } from './parse.ts'
import { jsonText, plain } from './print.ts'
import { commandsUnder, findCommand } from './table.ts'
import { type Run, UsageError, type World } from './world.ts'

/** The code of each command, loaded when it is asked for: an inspector must start lean. */
const RUNS: Readonly<Record<string, () => Promise<Run>>> = {
  serve: async () => (await import('./serve.ts')).serve,
  demo: async () => (await import('./demo/demo.ts')).demo,
  status: async () => (await import('./status.ts')).showStatus,
  doctor: async () => (await import('./doctor.ts')).doctor,
  'domain add': async () => (await import('./domain.ts')).addDomain,
  'domain list': async () => (await import('./domain.ts')).listDomains,
  'domain show': async () => (await import('./domain.ts')).showDomain,
  'domain remove': async () => (await import('./domain.ts')).removeDomain,
  'operator add': async () => (await import('./operator.ts')).addOperator,
  'operator password': async () => (await import('./operator.ts')).changePassword,
  'operator list': async () => (await import('./operator.ts')).listOperators,
  'operator remove': async () => (await import('./operator.ts')).removeOperator,
  'config get': async () => (await import('./config.ts')).getConfig,
  'config set': async () => (await import('./config.ts')).setConfig,
  'config export': async () => (await import('./config.ts')).exportConfig,
  'config history': async () => (await import('./config.ts')).listChanges,
  'config undo': async () => (await import('./config.ts')).undoChange,
  'quarantine list': async () => (await import('./quarantine.ts')).listHeld,
  'quarantine show': async () => (await import('./quarantine.ts')).showHeld,
  'quarantine source': async () => (await import('./quarantine.ts')).sourceOfHeld,
  'quarantine release': async () => (await import('./quarantine.ts')).releaseHeld,
  'quarantine delete': async () => (await import('./quarantine.ts')).deleteHeld,
  learn: async () => (await import('./learn.ts')).learn,
  invite: async () => (await import('./join.ts')).invite,
  join: async () => (await import('./join.ts')).joinNode,
  leave: async () => (await import('./member.ts')).leave,
  remove: async () => (await import('./member.ts')).removeNode,
  drain: async () => (await import('./member.ts')).drain,
  undrain: async () => (await import('./member.ts')).undrain,
  'conflict list': async () => (await import('./conflict.ts')).listConflicts,
  'conflict keep': async () => (await import('./conflict.ts')).keepSide,
  'allow add': async () => (await import('./list.ts')).addAllowed,
  'allow list': async () => (await import('./list.ts')).listAllowed,
  'allow remove': async () => (await import('./list.ts')).removeAllowed,
  'ban list': async () => (await import('./ban.ts')).listBans,
  'ban lift': async () => (await import('./ban.ts')).liftBan,
  'block add': async () => (await import('./list.ts')).addBlocked,
  'block list': async () => (await import('./list.ts')).listBlocked,
  'block remove': async () => (await import('./list.ts')).removeBlocked,
  'dkim list': async () => (await import('./dkim.ts')).listKeys,
  'dkim add': async () => (await import('./dkim.ts')).addKey,
  'dkim check': async () => (await import('./dkim.ts')).checkKey,
  'dkim retire': async () => (await import('./dkim.ts')).retireKey,
  'dkim remove': async () => (await import('./dkim.ts')).removeKey,
  'rule list': async () => (await import('./detection.ts')).listRules,
  'rule set': async () => (await import('./detection.ts')).setRule,
  'rule remove': async () => (await import('./detection.ts')).removeRule,
  'score list': async () => (await import('./detection.ts')).listScores,
  'score set': async () => (await import('./detection.ts')).setScore,
  'score reset': async () => (await import('./detection.ts')).resetScore,
  'map list': async () => (await import('./detection.ts')).listMaps,
  'map show': async () => (await import('./detection.ts')).showMap,
  'map set': async () => (await import('./detection.ts')).setMap,
  'map remove': async () => (await import('./detection.ts')).removeMap,
  'yara list': async () => (await import('./detection.ts')).listYara,
  'yara show': async () => (await import('./detection.ts')).showYara,
  'yara set': async () => (await import('./detection.ts')).setYara,
  'yara remove': async () => (await import('./detection.ts')).removeYara,
  'token add': async () => (await import('./token.ts')).addToken,
  'token list': async () => (await import('./token.ts')).listTokens,
  'token remove': async () => (await import('./token.ts')).removeToken,
  'queue list': async () => (await import('./queue.ts')).listQueue,
  'queue show': async () => (await import('./queue.ts')).showQueued,
  'queue retry': async () => (await import('./queue.ts')).retryQueue,
  'queue drop': async () => (await import('./queue.ts')).dropQueued,
  trace: async () => (await import('./trace.ts')).searchTrace,
  'trace list': async () => (await import('./trace.ts')).searchTrace,
  'trace show': async () => (await import('./trace.ts')).showTrace,
  version: async () => version,
  help: async () => help,
  completion: async () => completion,
  man: async () => manual,
}

/** Never throws for what an operator can cause; a bug passes through. */
export async function runCommandLine(argv: readonly string[], world: World): Promise<number> {
  const call = parseCommandLine(argv, world.environment)
  if (call.kind === 'mistake') {
    complain(world, call.json, {
      code: 'usage',
      field: null,
      message: call.message,
      remedy: 'See "postern help".',
    })
    return 2
  }
  if (call.help) {
    await world.out(commandHelp([call.command]))
    return 0
  }
  try {
    const run = await RUNS[call.command.path]?.()
    return run === undefined ? 2 : await run(call, world)
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error
    if (!(error instanceof RefusalError)) {
      complain(world, call.json, {
        code: 'unavailable',
        field: null,
        message: error.message,
        remedy: '',
      })
      return 1
    }
    const { code, field, message, advice } = error
    const usage = error instanceof UsageError
    complain(world, call.json, { code: usage ? 'usage' : code, field, message, remedy: advice })
    return usage ? 2 : 1
  }
}

type Complaint = {
  readonly code: string
  readonly field: string | null
  readonly message: string
  readonly remedy: string
}

/** One line on standard error; JSON for a script. */
function complain(world: World, json: boolean, complaint: Complaint): void {
  const { message, remedy } = complaint
  const words = message.endsWith(remedy) ? message : `${message} ${remedy}`.trim()
  world.err(json ? `${JSON.stringify({ error: complaint })}\n` : `postern: ${plain(words)}\n`)
}

const version: Run = async (call, world) => {
  const text = { version: VERSION, bun: Bun.version }
  await world.out(call.json ? jsonText(text) : `postern ${VERSION}\n`)
  return 0
}

const help: Run = async (call, world) => {
  const path = call.args.join(' ')
  if (path === '') {
    await world.out(overviewHelp())
    return 0
  }
  const command = findCommand(path)
  const below = commandsUnder(path)
  const found = command === null ? below : [command, ...below]
  if (found.length === 0) {
    throw new UsageError('command', `There is no command "${path}".`, 'See "postern help".')
  }
  await world.out(commandHelp(found))
  return 0
}

const completion: Run = async (call, world) => {
  const shell = SHELLS.find((name) => name === call.args[0])
  if (shell === undefined) {
    throw new UsageError(
      'shell',
      `No completion for "${call.args[0] ?? ''}".`,
      `Give ${SHELLS.join(', ')}.`,
    )
  }
  await world.out(completionScript(shell))
  return 0
}

const manual: Run = async (_call, world) => {
  await world.out(manualPage(VERSION))
  return 0
}

/** Every command of the table that has code; a test compares the two. */
export const RUNNABLE: readonly string[] = Object.keys(RUNS)
