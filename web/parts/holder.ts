/** Who has a held mail: can it be read now, what waits for its node, and what is said of both. */
import type { HeldDetail } from '../../src/admin/contract.ts'
import type { HeldRow, NodeName } from '../../src/message/rows.ts'
import { type Html, html } from '../html.ts'
import type { Site } from '../site.ts'
import { glyph, note } from './marks.ts'
import { isLiving, members, sinceWords } from './nodes.ts'
import { longTime, some } from './words.ts'

type Act = 'release' | 'delete'

/** What a page says of the nodes that have its mails; the nodes are asked for once. */
export type Holders = {
  /** Why the mail cannot be read now; null when its node answers. */
  absence(row: HeldRow): Html | null
  /** A small line in a list, when there is something to say. */
  line(row: HeldRow): Html | ''
  /** Of mail in the queue of another node: when it goes on. */
  queued(node: NodeName): Html
}

export function holders({ admin, clock }: Pick<Site, 'admin' | 'clock'>): Holders {
  const known = new Map(members(admin.cluster()).map((node) => [node.id, node]))
  return {
    absence({ owner }) {
      const holder = known.get(owner.id)
      if (holder === undefined) {
        return html`<b>${owner.name} had this mail</b> and is no member of the cluster any more. What is listed here is all that is left of it.`
      }
      if (isLiving(holder)) return null
      return html`<b>${holder.name} has this mail</b> and gives no answer${sinceWords(holder.sinceMs, clock.wallMs())}. It can be read when ${holder.name} answers again; what you decide now is noted and done then.`
    },

    line({ owner, pending }) {
      const [first] = pending
      if (first !== undefined) {
        const what = first.kind === 'release' ? 'Release' : 'Deletion'
        return html`<small class="c deferred">${glyph('deferred')} ${what} waits for ${first.to.name}</small>`
      }
      const holder = known.get(owner.id)
      if (holder !== undefined && isLiving(holder)) return ''
      const words = holder === undefined ? 'was removed' : 'does not answer'
      return html`<small class="c unknown">${glyph('unknown')} ${owner.name} ${words}</small>`
    },

    queued({ id, name }) {
      const holder = known.get(id)
      if (holder === undefined) {
        return note(
          'unknown',
          html`<b>${name} had it in its queue</b> and is no member of the cluster any more. Whether it delivered it is not known here.`,
        )
      }
      if (isLiving(holder)) {
        return html`<p>It waits in the queue of <b>${name}</b>, which tries again by itself.</p>`
      }
      const since = sinceWords(holder.sinceMs, clock.wallMs())
      return note(
        'unknown',
        html`<b>${name} has it in its queue</b> and gives no answer${since}. It goes on when ${name} does.`,
      )
    },
  }
}

/** What was asked for while the node was away, a line each person. */
export function pendingNote({ pending }: HeldRow, nowMs: number): Html | '' {
  const [first] = pending
  if (first === undefined) return ''
  const asked = (kind: Act): Html | '' => {
    const clicks = pending.filter((one) => one.kind === kind)
    const [click] = clicks
    if (click === undefined) return ''
    const verb = kind === 'release' ? 'released' : 'deleted'
    const whose = some([...new Set(clicks.map(({ recipient }) => recipient))], 3)
    return html` ${click.by} wants it ${verb} for ${whose}, ${longTime(click.atMs, nowMs)}.`
  }
  return note(
    'deferred',
    html`<b>It waits for ${first.to.name}.</b>${asked('release')}${asked('delete')} Only ${first.to.name} decides, so nothing is done twice; it does so when it answers.`,
  )
}

/** Is there a copy whose release nobody asked for yet? */
export function canRelease({ recipients, pending }: HeldRow): boolean {
  const asked = new Set(
    pending.filter(({ kind }) => kind === 'release').map((one) => one.recipient),
  )
  return recipients.some((recipient) => !asked.has(recipient))
}

/** True when every copy that an act was about waits for its node now. */
export function isPending({ row }: HeldDetail, kind: Act, recipient?: string): boolean {
  const waits = row.pending.filter((one) => one.kind === kind).map((one) => one.recipient)
  return recipient === undefined ? waits.length > 0 : waits.includes(recipient)
}

/** `it waits for mx2`. */
export function waitsFor({ row }: HeldDetail): string {
  return `it waits for ${row.pending[0]?.to.name ?? row.owner.name}`
}
