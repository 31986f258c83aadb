/** `serve`: a node in the foreground until a signal ends it. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { pause } from '../base/clock.ts'
import type { Level } from '../base/observe.ts'
import { ownAddresses, parseAddress, parseAdvertise, parseWeb } from './address.ts'
import { tokenOf } from './join.ts'
import type { Call } from './parse.ts'
import {
  dataDirOf,
  hasFlag,
  type NodeOptions,
  optionOf,
  type Run,
  type RunningNode,
  UsageError,
  type World,
} from './world.ts'

/** A start that is told to end may still succeed for this long, to be ended in order. */
const START_MS_MAX = 3_000
/** Beyond this the long times would be shorter than the short ones. */
const TIME_SCALE_MAX = 10_000

/**
 * Standard output holds the address of the set-up while it is open, then a line that is exactly
 * `ready` when every listener is open; nothing else ever. A node that joins begins anew in the
 * same process, and says nothing more.
 */
export const serve: Run = async (call, world) => {
  let options: NodeOptions | null = await nodeOptions(call, world)
  const ended = world.untilSignal().then(() => null)
  // A start may wait for its peers for hours. It writes nothing that a crash in its middle spoils.
  const isLate = ended.then(() => pause(world.clock, START_MS_MAX)).then(() => null)
  let isReady = false
  while (options !== null) {
    const node: RunningNode | null = await Promise.race([world.startNode(options), isLate])
    if (node === null) return 0
    if (!isReady) await world.out(node.setupUrl === null ? 'ready\n' : `${node.setupUrl}\nready\n`)
    isReady = true
    options = await Promise.race([ended, node.restart])
    await node.stop()
  }
  return 0
}

async function nodeOptions(call: Call, world: World): Promise<NodeOptions> {
  const dataDir = dataDirOf(call)
  const dev = hasFlag(call, '--dev')
  const smtp = optionOf(call, '--smtp') ?? (dev ? '0.0.0.0:2525' : '0.0.0.0:25')
  const given = optionOf(call, '--peer')
  const peer = given === undefined ? null : parseAddress('--peer', given)
  const advertise = parseAdvertise(optionOf(call, '--advertise') ?? '')
  return {
    dataDir,
    smtp: parseAddress('--smtp', smtp),
    web: parseWeb('--web', optionOf(call, '--web') ?? 'https://0.0.0.0:8443'),
    peer,
    advertise: advertise.length > 0 ? advertise : ownAddresses(peer?.host ?? '0.0.0.0'),
    join: await joinOption(optionOf(call, '--join') ?? '', dataDir, world),
    identity: identityOf(call),
    rebuildState: hasFlag(call, '--rebuild-state'),
    name: optionOf(call, '--name') ?? null,
    timeScale: timeScaleOf(call),
    command: world.command,
    logLevel: logLevelOf(call, 'info'),
  }
}

/** The token of a first start; its file may be gone at the next one. */
async function joinOption(text: string, dataDir: string, world: World): Promise<string | null> {
  if (text === '') return null
  const isFirst = !existsSync(join(dataDir, 'node.json'))
  if (!isFirst && text.startsWith('@') && !existsSync(text.slice(1))) return null
  return await tokenOf(text, world)
}

function identityOf(call: Call): NodeOptions['identity'] {
  const [adopt, begin] = [hasFlag(call, '--adopt-identity'), hasFlag(call, '--new-identity')]
  if (!adopt || !begin) return adopt ? 'adopt' : begin ? 'new' : 'keep'
  throw new UsageError(
    'identity',
    '--adopt-identity and --new-identity exclude each other.',
    'Adopt when this machine takes the place of the other one; new when this is a copy.',
  )
}

/** @throws UsageError */
function timeScaleOf(call: Call): number {
  const text = optionOf(call, '--time-scale')
  if (text === undefined) return 1
  const scale = /^\d{1,5}(\.\d{1,3})?$/.test(text) ? Number(text) : 0
  if (scale >= 1 && scale <= TIME_SCALE_MAX) return scale
  throw new UsageError(
    'time-scale',
    `--time-scale "${text}" is out of range.`,
    `Give 1 to ${TIME_SCALE_MAX}; it is for tests only.`,
  )
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
