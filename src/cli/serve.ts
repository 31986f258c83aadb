/** `serve`: a node in the foreground until a signal ends it. */
import type { Level } from '../base/observe.ts'
import { parseAddress, parseWeb } from './address.ts'
import type { Call } from './parse.ts'
import {
  dataDirOf,
  hasFlag,
  type NodeOptions,
  optionOf,
  type Run,
  UsageError,
  type World,
} from './world.ts'

/**
 * Standard output holds the address of the set-up while it is open, then a line that is exactly
 * `ready` when every listener is open; nothing else ever.
 */
export const serve: Run = async (call, world) => {
  const options = nodeOptions(call, world)
  const ended = world.untilSignal()
  const node = await world.startNode(options)
  await world.out(node.setupUrl === null ? 'ready\n' : `${node.setupUrl}\nready\n`)
  await ended
  await node.stop()
  return 0
}

function nodeOptions(call: Call, world: World): NodeOptions {
  for (const option of ['--peer', '--join']) {
    if (optionOf(call, option) === undefined) continue
    throw new UsageError(
      option.slice(2),
      `${option} is refused: this version runs a single node, without peers.`,
      `Leave ${option} out.`,
    )
  }
  const dev = hasFlag(call, '--dev')
  const smtp = optionOf(call, '--smtp') ?? (dev ? '0.0.0.0:2525' : '0.0.0.0:25')
  return {
    dataDir: dataDirOf(call),
    smtp: parseAddress('--smtp', smtp),
    web: parseWeb('--web', optionOf(call, '--web') ?? 'https://0.0.0.0:8443'),
    name: optionOf(call, '--name') ?? null,
    command: world.command,
    logLevel: logLevelOf(call, 'info'),
  }
}

const LEVELS: readonly Level[] = ['debug', 'info', 'warn', 'error']

/** @throws UsageError for a word that is no level */
export function logLevelOf(call: Call, otherwise: Level): Level {
  const text = optionOf(call, '--log-level')
  if (text === undefined) return otherwise
  const level = LEVELS.find((name) => name === text)
  if (level !== undefined) return level
  throw new UsageError('log-level', `"${text}" is no log level.`, `Give ${LEVELS.join(', ')}.`)
}
