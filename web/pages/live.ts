/** What changed since a page was drawn: counts, and a line above the list; rows never move. */
import { Elysia, t } from 'elysia'
import { type Html, html, page } from '../html.ts'
import { link } from '../parts/forms.ts'
import { note } from '../parts/marks.ts'
import { queuedOnAll } from '../parts/nodes.ts'
import { liveParts, type Place } from '../parts/shell.ts'
import { counted } from '../parts/words.ts'
import type { Site } from '../site.ts'
import { numbers, rangeOf } from './overview.ts'

const PLACES: readonly Place[] = [
  'overview',
  'messages',
  'quarantine',
  'queue',
  'settings',
  'conflicts',
  'lists',
  'operators',
  'cluster',
  'alerts',
  'changes',
]

export function livePage(site: Site) {
  return new Elysia().get(
    '/live',
    async ({ query }) => {
      const at = PLACES.find((place) => place === query.at) ?? 'account'
      return page(html`${liveParts(site, site.admin.cluster(), at)}
${await more(site, at, query)}`)
    },
    {
      query: t.Object({
        at: t.Optional(t.String({ maxLength: 20 })),
        t: t.Optional(t.String({ maxLength: 10 })),
        q: t.Optional(t.String({ maxLength: 1_000 })),
        seen: t.Optional(t.String({ maxLength: 64 })),
      }),
    },
  )
}

type Asked = { readonly t?: string; readonly q?: string; readonly seen?: string }

async function more(
  site: Site,
  at: Place,
  { t: range, q = '', seen = '' }: Asked,
): Promise<Html | ''> {
  if (at === 'overview') {
    return html`<hx-partial hx-target="#numbers" hx-swap="innerMorph">${await numbers(site, rangeOf(range))}</hx-partial>`
  }
  // A page further back in the list has no newest row to compare with.
  if (seen === '' || (at !== 'quarantine' && at !== 'queue')) return ''
  const words = at === 'quarantine' ? newHeld(site, q, seen) : newQueued(site, seen)
  return html`<hx-partial hx-target="#fresh" hx-swap="innerHTML">${words}</hx-partial>`
}

/** Rows that stand above the first one that the page shows. */
function newHeld(site: Site, q: string, seen: string): Html | '' {
  const { rows } = site.admin.held({ text: q, limit: 50, cursor: null })
  // Ids sort by time of arrival: what was first and is gone does not make the rest new.
  const fresh = seen === 'none' ? rows.length : rows.filter(({ id }) => id > seen).length
  if (fresh === 0) return ''
  const words = `${fresh === 50 ? '50 or more new mails' : counted(fresh, 'new mail')} since this list was drawn.`
  return note(
    'info',
    html`<b>${words}</b>`,
    html`<a class="btn small" href="${link('/quarantine', { q })}">Show</a>`,
  )
}

function newQueued(site: Site, seen: string): Html | '' {
  const total = queuedOnAll(site.admin.cluster(), site.admin.status().queue.messages)
  if (String(total) === seen) return ''
  return note(
    'info',
    html`<b>${counted(total, 'mail')} ${total === 1 ? 'waits' : 'wait'} now.</b> This list was drawn with ${seen}.`,
    html`<a class="btn small" href="/queue">Show</a>`,
  )
}
