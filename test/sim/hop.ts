/**
 * The next hop of a simulation: it takes mail, refuses some recipients for good and others for now,
 * is slow, or hangs up after the final dot with or without having taken the mail.
 */
import type { Deliverer, Delivery } from '../../src/mail/deliver/contract.ts'
import type { Body } from '../../src/message/body.ts'
import type { Outcome } from '../../src/message/outcome.ts'
import { reply } from '../../src/message/reply.ts'
import type { Dice } from './dice.ts'
import type { Ledger } from './ledger.ts'
import type { SimNode } from './node.ts'
import type { SimProcess, World } from './world.ts'

/** Parts of the attempts, 0..1. */
export type HopMood = {
  readonly latencyMs: number
  readonly busy: number
  /** Hangs up after the dot; half of the time it has the mail. */
  readonly hangsUp: number
  readonly slow: number
}

export const KIND_HOP: HopMood = { latencyMs: 5, busy: 0, hangsUp: 0, slow: 0 }

const HOST = 'hop[192.0.2.25]:25'
const SLOW_MS = 20_000
const HUNG_UP: Outcome = { kind: 'later', host: HOST, cause: 'closed after the dot', dotSent: true }

export class NextHops {
  readonly #world: World
  readonly #dice: Dice
  readonly #ledger: Ledger
  mood: HopMood
  /** Nobody answers at any next hop. */
  isDown = false
  /** Nodes that reach no next hop. */
  readonly unreached = new Set<SimNode>()
  /** Called between the mail at the next hop and its answer. */
  onTaken: ((node: SimNode, delivery: Delivery) => void) | null = null

  constructor(world: World, dice: Dice, ledger: Ledger, mood: HopMood) {
    this.#world = world
    this.#dice = dice
    this.#ledger = ledger
    this.mood = mood
  }

  /** As one process reaches it. */
  deliverer(node: SimNode, process: SimProcess): Deliverer {
    return {
      deliver: (delivery) => this.#deliver(node, process, delivery),
      close: () => Promise.resolve(),
    }
  }

  async #deliver(
    node: SimNode,
    process: SimProcess,
    delivery: Delivery,
  ): Promise<readonly Outcome[]> {
    const dice = this.#dice
    const { latencyMs, busy, hangsUp, slow } = this.mood
    const waitMs = dice.exponential(latencyMs) + (dice.chance(slow) ? SLOW_MS : 0)
    await new Promise<void>((resolve) => this.#world.after(waitMs, resolve, process))
    const all = (cause: string): readonly Outcome[] =>
      delivery.recipients.map(() => ({ kind: 'later', host: HOST, cause, dotSent: false }))
    if (this.isDown || this.unreached.has(node)) return all('connect: refused')
    if (dice.chance(busy)) return all('450 4.2.0 busy')
    const wanted = delivery.recipients.map(({ address }) => this.#mayHave(address, delivery.sender))
    const answers: readonly Outcome[] = wanted.map((takes) =>
      takes
        ? { kind: 'delivered', host: HOST, tls: null, reply: reply(250, '2.0.0', 'ok') }
        : { kind: 'never', host: HOST, reply: reply(550, '5.1.1', 'nobody of that name') },
    )
    if (!wanted.includes(true)) return answers
    try {
      await delivery.beforeDot()
      const refused = wanted.flatMap((takes, place) => (takes ? [] : [place]))
      if (refused.length > 0) await delivery.spared?.(refused)
    } catch (error) {
      return all(String(error))
    }
    if (delivery.mayDot?.() === false) return all('another node may have it')
    const known = this.#ledger.dotted(delivery.id, delivery.sender, node)
    const body = bytesOf(node, delivery.body)
    const hangs = dice.chance(hangsUp)
    const takes = !hangs || dice.chance(0.5)
    return await new Promise<readonly Outcome[]>((resolve) => {
      // The dot is on the wire: what becomes of the process does not matter any more.
      this.#world.after(dice.exponential(latencyMs), () => {
        const cutOff = answers.map(
          (answer): Outcome => (answer.kind === 'never' ? answer : HUNG_UP),
        )
        if (this.unreached.has(node)) return void this.#hangUp(process, () => resolve(cutOff))
        if (takes) this.#take(node, delivery, wanted, { body, known })
        if (hangs) return void this.#hangUp(process, () => resolve(cutOff))
        this.#world.after(dice.exponential(latencyMs), () => resolve(answers), process)
      })
    })
  }

  #hangUp(process: SimProcess, resolve: () => void): void {
    this.#world.sometimes('next hop hung up after the dot')
    this.#world.after(1, resolve, process)
  }

  #take(
    node: SimNode,
    delivery: Delivery,
    wanted: readonly boolean[],
    { body, known }: { readonly body: Buffer; readonly known: (index: number) => boolean },
  ): void {
    for (const [position, { address }] of delivery.recipients.entries()) {
      if (wanted[position] !== true) continue
      this.#world.note(`${node.name} ${delivery.id} ${address}`)
      this.#world.tell(() => `${address} gets ${delivery.id} from ${node.name}`)
      const index = Number(/^r(\d+)\./.exec(address)?.[1] ?? 0)
      this.#ledger.arrived({
        mid: delivery.id,
        index,
        isKnown: known(index),
        address,
        sender: delivery.sender,
        body,
        node: node.id,
        nodeName: node.name,
      })
    }
    this.onTaken?.(node, delivery)
  }

  /** `r1.token@…` for one who is there, `r1.token.x@…` for one who is not. */
  #mayHave(address: string, sender: string): boolean {
    return sender === '' || !address.includes('.x@')
  }
}

/** What goes out behind our own header lines, from where the spool says that it is. */
function bytesOf(node: SimNode, body: Body): Buffer {
  if (body.kind === 'memory') return Buffer.from(body.bytes)
  return Buffer.concat(
    body.extents.map(({ path, offset, length }) => node.spool.peek(path, offset, length)),
  )
}
