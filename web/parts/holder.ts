/** Who has a mail, held or waiting: is that node in reach, who else has it, what waits for whom. */
import type { HeldDetail, HeldWaits } from '../../src/admin/contract.ts'
import { some } from '../../src/base/prose.ts'
import type { HeldRow, HolderRow, NodeName, QueueRow } from '../../src/message/rows.ts'
import { type Html, html } from '../html.ts'
import type { Site } from '../site.ts'
import { glyph, type Mark, note } from './marks.ts'
import { isLiving, members, type NodeView, sinceWords } from './nodes.ts'
import { longTime, sentence } from './words.ts'

type Act = 'release' | 'delete'

/** What a page says of the nodes that have its mails; the nodes are asked for once. */
export type Holders = {
  /** Why the mail cannot be read now; null when its node answers. */
  absence(row: HeldRow): Html | null
  /** A small line in a list, when there is something to say. */
  line(row: HeldRow): Html | ''
  /** Of mail in the queue of another node: when it goes on. `copied`: somebody has a copy. */
  queued(node: NodeName, copied: boolean): Html
  /** Since when the owner gives no answer, as in `since 03:07`; null: it answers; empty: it is gone. */
  silence(owner: NodeName): string | null
  /** Who has a copy, a phrase each: `copy on mx2`, `perhaps on mx2`, `only here`. */
  copies(row: Pick<QueueRow, 'owner' | 'holders'>): readonly Copy[]
}

export type Copy = { readonly mark: Mark; readonly words: string }

export function holders({ admin, clock }: Pick<Site, 'admin' | 'clock'>): Holders {
  const known = new Map(members(admin.cluster()).map((node) => [node.id, node]))
  return {
    absence({ owner, holders: others }) {
      if (others.some(({ id }) => isIn(known.get(id)))) return null
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
      if (isIn(holder)) return ''
      const words = holder === undefined ? 'was removed' : 'does not answer'
      return html`<small class="c unknown">${glyph('unknown')} ${owner.name} ${words}</small>`
    },

    silence({ id }) {
      const holder = known.get(id)
      if (isIn(holder)) return null
      return holder === undefined ? '' : sinceWords(holder.sinceMs, clock.wallMs()).trim()
    },

    copies({ owner, holders: others }) {
      const said = others.map((holder) => copyOf(holder, known.get(holder.node.id)))
      // Alone in its cluster a node has every mail alone, and says so on its first page.
      if (known.size < 2 || others.some(({ state }) => state !== 'discarding')) return said
      const here = known.get(owner.id)?.here === true
      return [{ mark: 'warn', words: here ? 'only here' : `only on ${owner.name}` }, ...said]
    },

    queued({ id, name }, copied) {
      const holder = known.get(id)
      if (holder === undefined) {
        const what = copied
          ? 'A node with a copy takes it over.'
          : 'Whether it delivered it is not known here.'
        return note(
          'unknown',
          html`<b>${name} had it in its queue</b> and is no member of the cluster any more. ${what}`,
        )
      }
      if (isLiving(holder)) {
        return html`<p>It waits in the queue of <b>${name}</b>, which tries again by itself.</p>`
      }
      const since = sinceWords(holder.sinceMs, clock.wallMs())
      return note(
        'unknown',
        html`<b>${name} has it in its queue</b> and gives no answer${since}. It goes on when ${name} does${copied ? ', or when a node with a copy takes it over, which happens by itself' : ''}.`,
      )
    },
  }
}

function isIn(node: NodeView | undefined): boolean {
  return node !== undefined && isLiving(node)
}

function copyOf({ node: { name }, state }: HolderRow, holder: NodeView | undefined): Copy {
  if (state === 'discarding') return { mark: 'none', words: `${name} is to forget its copy` }
  if (state === 'sent') return { mark: 'unknown', words: `perhaps on ${name}` }
  if (isIn(holder)) return { mark: 'delivered', words: `copy on ${name}` }
  return { mark: 'unknown', words: `copy on ${name}, which does not answer` }
}

/** The phrases in one small text; what is in danger stands out. */
export function copyWords(copies: readonly Copy[]): Html {
  return html`${copies.map(({ mark, words }, at) => {
    const comma = at === 0 ? '' : ', '
    return mark === 'warn' || mark === 'unknown'
      ? html`${comma}<span class="c ${mark}">${glyph(mark)} ${words}</span>`
      : html`${comma}${words}`
  })}`
}

/** Why nobody can decide now, and what it means to release it all the same. */
export function waitsNote(waits: HeldWaits | null, nowMs: number, anyway: Html | null): Html | '' {
  if (waits === null) return ''
  const { words, doubtSinceMs } = waits
  if (doubtSinceMs === null) return note('unknown', html`<b>${sentence(words)}</b>`)
  return note(
    'unknown',
    html`<b>${sentence(words)} It may have been released there since ${longTime(doubtSinceMs, nowMs)}.</b> That is not known here. Released anyway, it could arrive twice; nothing is lost by waiting.`,
    anyway,
  )
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

/** It may have been released already: only `anyway` releases it. */
export function isDoubtful({ waits }: HeldDetail): boolean {
  return waits !== null && waits.doubtSinceMs !== null
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
