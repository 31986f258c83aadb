/** What a command may touch: its streams, the environment, the clock, and how to start a node. */
import type { Admin } from '../admin/contract.ts'
import type { Clock } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'
import type { Level } from '../base/observe.ts'
import type { Random } from '../base/random.ts'
import type { Call, Environment } from './parse.ts'

export type Address = { readonly host: string; readonly port: number }

/** What src/node.ts needs to build one node. */
export type NodeOptions = {
  readonly dataDir: string
  readonly smtp: Address
  readonly web: Address & { readonly tls: boolean }
  readonly name: string | null
  /** Where peers are listened for, TCP and UDP; null: port 7946, or any when that is taken. */
  readonly peer: Address | null
  /** What peers are told to dial; empty: the addresses of this machine. Port 0: that of `peer`. */
  readonly advertise: readonly Address[]
  /** A join token, used when this node is alone; null: none. */
  readonly join: string | null
  /** A directory that was copied to this machine: refused, taken over, or begun anew. */
  readonly identity: 'keep' | 'adopt' | 'new'
  /** A database that is damaged or gone is read anew from the peers; else the start is refused. */
  readonly rebuildState: boolean
  /** Asked when the settings name none; without it, those of the system. */
  readonly nameServers?: readonly Address[]
  /** Divides the long times of adoption, for tests: 1 but there. */
  readonly timeScale: number
  /** How to run this program again: `[binary]`, or `[bun, main.ts]` from source. */
  readonly command: readonly string[]
  readonly logLevel?: Level
}

export type RunningNode = {
  readonly admin: Admin
  /** As bound: the port is never 0. */
  readonly smtp: Address
  readonly web: { readonly url: string }
  /** Address of the set-up with its one-time code; null when an operator exists. */
  readonly setupUrl: string | null
  /** Resolves when the node must be stopped and started with these, e.g. after it joined. */
  readonly restart: Promise<NodeOptions>
  /** Ends sessions, flushes, closes. Called once. */
  stop(): Promise<void>
}

export type World = {
  readonly environment: Environment
  readonly clock: Clock
  readonly random: Random
  /** How to run this program again. */
  readonly command: readonly string[]
  out(text: string | Uint8Array): Promise<void>
  err(text: string): void
  /** All of standard input, at most 1 MB. */
  input(): Promise<string>
  /** The same as it came: a mail. More than 3 MB is cut somewhere beyond. */
  bytes(): Promise<Uint8Array>
  /** Null when standard output is no terminal. */
  readonly terminal: { readonly columns: number; readonly colour: boolean } | null
  /** @throws RefusalError for a port in use, a directory that cannot be used, newer data… */
  startNode(options: NodeOptions): Promise<RunningNode>
  /**
   * Resolves with the first signal that asks this process to end; from the call on, signals do
   * not end it by themselves. Called once.
   */
  untilSignal(): Promise<string>
}

/** One command: returns its exit code. Refusals are thrown. */
export type Run = (call: Call, world: World) => Promise<number>

/** The value of an option, or undefined when neither command line nor environment has it. */
export function optionOf(call: Call, name: string): string | undefined {
  const value = call.options.get(name)
  return typeof value === 'string' ? value : undefined
}

export function hasFlag(call: Call, name: string): boolean {
  return call.options.get(name) === true
}

/** A mistake in the value of an option: exit code 2, as an unknown option. */
export class UsageError extends RefusalError {
  override name = 'UsageError'

  constructor(field: string, message: string, advice: string) {
    super('invalid', field, message, advice)
  }
}

/** The data directory of the call. @throws UsageError when nothing names one */
export function dataDirOf(call: Call): string {
  const dir = optionOf(call, '--data')
  if (dir !== undefined && dir !== '') return dir
  throw new UsageError(
    'data',
    `"${call.command.path}" needs a data directory.`,
    'Give --data DIR, or set POSTERN_DATA.',
  )
}
