/**
 * Waits until others have what this node has written (design: mail.md, Release once): a claim must
 * be where it can be taken over before it has an effect. Beats acknowledge within half a second;
 * who waits for it asks, which is one round trip.
 */
import { type Clock, pause } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import type { Calls, Roster } from './contract.ts'
import type { Point } from './exchange.ts'
import type { Sync } from './sync.ts'

const TOPIC = 'state.taken'
const ANSWER_MS = 5_000
const AGAIN_MS = 500

export type TakenOptions = {
  readonly clock: Clock
  readonly calls: Calls
  readonly roster: Pick<Roster, 'get'>
  readonly sync: Pick<Sync, 'point' | 'hasTaken' | 'vector' | 'peer'>
  /** Who was not heard for so long is not waited for, and nobody is waited for any longer. */
  readonly patienceMs: number
}

type Waiter = { readonly point: Point; readonly untilMono: number; readonly end: () => void }

export class Taken {
  readonly #options: TakenOptions
  readonly #startMono: number
  readonly #waiters = new Map<NodeId, Waiter[]>()

  constructor(options: TakenOptions) {
    this.#options = options
    this.#startMono = options.clock.monoMs()
    const { calls, sync } = options
    calls.answer(TOPIC, async (value) => {
      const { writer, seq } = readPoint(value)
      const has = (sync.vector().get(writer) ?? 0) >= seq
      return { kind: 'json', value: { has, ...sync.point() } }
    })
  }

  /**
   * Resolves when all that this node has written so far is durable on each of `nodes` that is a
   * member and was heard from lately, or when its time is over. Never rejects.
   */
  async by(nodes: readonly NodeId[]): Promise<void> {
    const { clock, sync, patienceMs } = this.#options
    const point = sync.point()
    const untilMono = clock.monoMs() + patienceMs
    const open = nodes.filter((node) => !this.#isSilent(node))
    await Promise.all(
      open.map((node) => new Promise<void>((end) => this.#wait(node, { point, untilMono, end }))),
    )
  }

  /**
   * No rows went between the two for so long. A node that has just started has heard nobody, and
   * yet may have been heard.
   */
  #isSilent(node: NodeId): boolean {
    const { clock, roster, sync, patienceMs } = this.#options
    if (roster.get(node)?.standing !== 'member') return true
    const heardMono = sync.peer(node)?.heardMono ?? this.#startMono
    return clock.monoMs() - heardMono >= patienceMs
  }

  #wait(node: NodeId, waiter: Waiter): void {
    const others = this.#waiters.get(node)
    if (others !== undefined) {
      others.push(waiter)
      return
    }
    this.#waiters.set(node, [waiter])
    // Those of one moment are one question.
    queueMicrotask(() => void this.#askUntil(node))
  }

  async #askUntil(node: NodeId): Promise<void> {
    const { clock } = this.#options
    for (;;) {
      const [first] = this.#end(node)
      if (first === undefined) {
        this.#waiters.delete(node)
        return
      }
      const { writer } = first.point
      const points = (this.#waiters.get(node) ?? []).map(({ point }) => point)
      const seq = Math.max(...points.flatMap((point) => (point.writer === writer ? point.seq : [])))
      const has = await this.#ask(node, { writer, seq })
      this.#end(node, has ? { writer, seq } : null)
      if (!has) await pause(clock, AGAIN_MS)
    }
  }

  /** Those whose wait is over go; gives the others. */
  #end(node: NodeId, known: Point | null = null): readonly Waiter[] {
    const { clock, sync } = this.#options
    const isSilent = this.#isSilent(node)
    const rest = (this.#waiters.get(node) ?? []).filter(({ point, untilMono, end }) => {
      const isKnown = known?.writer === point.writer && point.seq <= known.seq
      const isOver = isSilent || clock.monoMs() >= untilMono
      if (!isKnown && !isOver && !sync.hasTaken(node, point)) return true
      end()
      return false
    })
    this.#waiters.set(node, rest)
    return rest
  }

  /** What it wrote itself must be here too: it may have taken over what is asked about. */
  async #ask(node: NodeId, point: Point): Promise<boolean> {
    try {
      const value = await this.#options.calls.ask(node, TOPIC, point, ANSWER_MS)
      const { writer, seq } = readPoint(value)
      const mine = this.#options.sync.vector().get(writer) ?? 0
      return (value as { readonly has?: unknown }).has === true && mine >= seq
    } catch (error) {
      if (!(error instanceof RefusalError)) throw error
      return false
    }
  }
}

/** @throws RefusalError invalid */
function readPoint(value: unknown): Point {
  const { writer, seq } = (typeof value === 'object' && value !== null ? value : {}) as Readonly<
    Record<string, unknown>
  >
  if (typeof writer === 'string' && writer.length <= 40 && Number.isSafeInteger(seq)) {
    return { writer, seq: seq as number }
  }
  throw new RefusalError(
    'invalid',
    'writer',
    'A question of a peer is not valid.',
    'Both nodes should run the same version, or one version apart.',
  )
}
