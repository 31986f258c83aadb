/** Who has a held mail: can it be read now, what waits for its node, and what is said of both. */
import type { HeldDetail } from '../../src/admin/contract.ts'
import type { HeldRow } from '../../src/message/rows.ts'
import { type Html, html } from '../html.ts'
import type { Site } from '../site.ts'
import { glyph, note } from './marks.ts'
import { isLiving, members, type NodeView, sinceWords } from './nodes.ts'
import { longTime, some } from './words.ts'

type Parts = Pick<Site, 'admin' | 'clock'>
type Act = 'release' | 'delete'

/** Null: no member any more. */
function holderOf({ admin }: Parts, { owner }: HeldRow): NodeView | null {
  return members(admin.cluster()).find(({ id }) => id === owner.id) ?? null
}

/** Why the mail cannot be read now; null when its node answers. */
export function absence(site: Parts, row: HeldRow): Html | null {
  const holder = holderOf(site, row)
  if (holder === null) {
    return html`<b>${row.owner.name} had this mail</b> and is no member of the cluster any more. What is listed here is all that is left of it.`
  }
  if (isLiving(holder)) return null
  return html`<b>${holder.name} has this mail</b> and gives no answer${sinceWords(holder.sinceMs, site.clock.wallMs())}. It can be read when ${holder.name} answers again; what you decide now is noted and done then.`
}

/** The small line of a list: on which node, when it matters; what waits for it. */
export function holderLine(site: Parts, row: HeldRow): Html | '' {
  const holder = holderOf(site, row)
  const [first] = row.pending
  if (first !== undefined) {
    const what = first.kind === 'release' ? 'Release' : 'Deletion'
    return html`<small class="c deferred">${glyph('deferred')} ${what} waits for ${first.to.name}</small>`
  }
  if (holder !== null && isLiving(holder)) return ''
  const words = holder === null ? 'was removed' : 'does not answer'
  return html`<small class="c unknown">${glyph('unknown')} ${row.owner.name} ${words}</small>`
}

/** What was asked for while the node was away, a line each person. */
export function pendingNote({ clock }: Parts, { pending }: HeldRow): Html | '' {
  const [first] = pending
  if (first === undefined) return ''
  const nowMs = clock.wallMs()
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
