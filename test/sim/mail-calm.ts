/** What the histories of mail have in common: a calm cluster, mails in its queues, and who has them. */
import { expect } from 'bun:test'
import type { MessageId } from '../../src/base/ids.ts'
import type { Delivery, Mail, Sums } from './ledger.ts'
import { calmMail, type MailKnobs, MailSimulation } from './mail-simulate.ts'
import type { Cut } from './network.ts'
import type { SimNode } from './node.ts'

const opened: MailSimulation[] = []
let seed = 0

/** After each row. */
export function closeAll(): void {
  for (const sim of opened.splice(0)) sim.close()
}

/** Nodes that know each other; nobody sends, nothing fails. All times are the product's own. */
export function calm(nodes: number, part: Partial<MailKnobs> = {}): MailSimulation {
  seed += 1
  const tune = (knobs: MailKnobs): MailKnobs => ({ ...calmMail(knobs), nodes, ...part })
  const sim = new MailSimulation(seed, { tune })
  opened.push(sim)
  const isReady = (): boolean =>
    sim.nodes.every(({ run }) => run?.mail?.custody?.copies.candidates.all().length === nodes - 1)
  expect(sim.world.runTill(isReady, 20_000), `row of seed ${seed}`).toBe(true)
  return sim
}

export const node = (sim: MailSimulation, index: number): SimNode => {
  const found = sim.nodes[index]
  if (found === undefined) throw new Error(`there is no node ${index}`)
  return found
}

/** Mails whose senders have read 250 from `at`; no next hop takes them yet. */
export function queued(sim: MailSimulation, at: SimNode, count: number): readonly Mail[] {
  sim.hops.isDown = true
  const mails = Array.from({ length: count }, () => sim.world.act(() => sim.senders.send(at)))
  const isDone = sim.world.runTill(() => mails.every(({ acked }) => acked !== null), 30_000, 10)
  expect(isDone).toBe(true)
  for (const mail of mails) expect(mail.acked?.copies).toBe(2)
  return mails
}

export function midOf(mail: Mail): MessageId {
  const mid = mail.acked?.mid
  if (mid === undefined) throw new Error(`${mail.token} is not acknowledged`)
  return mid
}

export const deliveriesOf = (sim: MailSimulation, mail: Mail): readonly Delivery[] =>
  mail.recipients.flatMap((_, place) => sim.ledger.deliveries(mail, place))

export const isDelivered = (sim: MailSimulation, mails: readonly Mail[]): boolean =>
  mails.every((mail) =>
    mail.recipients.every((_, place) => sim.ledger.deliveries(mail, place).length > 0),
  )

/** Who has a copy of it now, beside its owner. */
export const holdersOf = (sim: MailSimulation, mail: Mail): readonly SimNode[] =>
  sim.nodes.filter(({ run }) => run?.mail?.queue.copy(midOf(mail)) != null)

export const ownersOf = (sim: MailSimulation, mail: Mail): readonly SimNode[] =>
  sim.nodes.filter(({ run }) => run?.mail?.queue.get(midOf(mail)) != null)

/** Mail and peers: nothing passes. */
export const around =
  (...some: readonly SimNode[]): Cut =>
  (from, to) => {
    const side = new Set(some.flatMap(({ host, smtpHost }) => [host, smtpHost]))
    return side.has(from) !== side.has(to)
  }

export const duplicates = ({ duplicates: by }: Sums): number =>
  [...by.values()].reduce((sum, count) => sum + count, 0)

/** Delivered within this time, once. */
export function expectDelivered(
  sim: MailSimulation,
  mails: readonly Mail[],
  withinMs: number,
): void {
  expect(sim.world.runTill(() => isDelivered(sim, mails), withinMs)).toBe(true)
}

export function calmSenders(): MailKnobs['senders'] {
  return { everyMs: 1_000, large: 0, refused: 0, held: 0, lostReplies: 0 }
}
