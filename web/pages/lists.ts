/** Allow and block lists: who is let in and who is kept out, whatever the score. */
import { Elysia, t } from 'elysia'
import type { ListEntry } from '../../src/admin/contract.ts'
import { RefusalError } from '../../src/base/errors.ts'
import type { Visit } from '../guard.ts'
import { type Html, html, seeOther } from '../html.ts'
import { act, csrf, MORPH, mayChange } from '../parts/forms.ts'
import { note } from '../parts/marks.ts'
import { shell } from '../parts/shell.ts'
import { count, counted, longTime } from '../parts/words.ts'
import type { Site } from '../site.ts'

type List = ListEntry['list']

const LISTS: readonly { readonly list: List; readonly title: string; readonly about: string }[] = [
  {
    list: 'block',
    title: 'Block',
    about: 'Kept out, whatever the score',
  },
  {
    list: 'allow',
    title: 'Allow',
    about: 'Let in, whatever the score; a sender only where somebody vouches for it',
  },
]

/** Entries that the page lists; the API gives all. */
const SHOWN = 500

const FORM = t.Object({
  list: t.String({ maxLength: 20 }),
  kind: t.Optional(t.String({ maxLength: 20 })),
  value: t.String({ maxLength: 1_000 }),
  note: t.Optional(t.String({ maxLength: 2_000 })),
})

type Typed = {
  readonly list: string
  readonly kind: string
  readonly value: string
  readonly note: string
}

export function listPages(site: Site) {
  const { admin, guard, flashes } = site
  return new Elysia({ prefix: '/lists' })
    .get('/', ({ request }) => listsPage(site, request, null, null))
    .post(
      '/add',
      ({ request, body }) => {
        const { list, value, note: words = '' } = body
        const typed = { list, kind: body.kind ?? 'ip', value: value.trim(), note: words.trim() }
        try {
          const entry = admin.addListEntry(guard.authorOf(request), typed)
          flashes.add(guard.visitOf(request).session, done(entry, 'is on'))
          return seeOther('/lists')
        } catch (error) {
          if (!(error instanceof RefusalError) || error.code === 'forbidden') throw error
          return listsPage(site, request, typed, error)
        }
      },
      { body: FORM },
    )
    .post(
      '/remove',
      ({ request, body }) => {
        const { list, kind = 'ip', value } = body
        admin.removeListEntry(guard.authorOf(request), list, kind, value)
        flashes.add(guard.visitOf(request).session, done({ list, value }, 'is no longer on'))
        return seeOther('/lists')
      },
      { body: FORM },
    )
    .post(
      '/lift',
      ({ request, body }) => {
        admin.liftBan(guard.authorOf(request), body.network)
        const words = `${body.network} is let in again, on all nodes`
        flashes.add(guard.visitOf(request).session, words)
        return seeOther('/lists')
      },
      { body: t.Object({ network: t.String({ maxLength: 100 }) }) },
    )
}

function done(
  { list, value }: { readonly list: string; readonly value: string },
  verb: string,
): string {
  return `${value} ${verb} the ${list} list, on all nodes`
}

function listsPage(
  site: Site,
  request: Request,
  typed: Typed | null,
  refusal: RefusalError | null,
): Response {
  const visit = site.guard.visitOf(request)
  const acts = mayChange(site, visit)
  const cards = LISTS.map(({ list, title, about }) => {
    const mine = typed?.list === list ? { typed, refusal } : { typed: null, refusal: null }
    return html`<section class="card" aria-labelledby="${list}"><header><h2 id="${list}">${title}</h2><small>${about}</small></header>
${acts ? addForm(visit, list, mine.typed, mine.refusal) : ''}
${table(site, visit, list, acts)}</section>`
  })
  const stray =
    refusal !== null && !LISTS.some(({ list }) => list === typed?.list)
      ? note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)
      : ''
  const main = html`<div class="head"><h1>Allow and block lists</h1><p>In force on all nodes</p></div>${stray}
${cards}${refusedCard(site, visit, acts)}`
  return shell(site, visit, {
    title: 'Allow and block lists',
    at: 'lists',
    main,
    status: refusal === null ? 200 : 422,
  })
}

function addForm(
  visit: Visit,
  list: List,
  typed: Typed | null,
  refusal: RefusalError | null,
): Html {
  const named = ['kind', 'value', 'note']
  const wrong = (field: string): Html | '' =>
    refusal?.field === field ? html` aria-invalid="true" aria-describedby="${list}-${field}-e"` : ''
  const error = (field: string): Html | '' =>
    refusal?.field === field
      ? html`<p class="err" id="${list}-${field}-e">${refusal.message} ${refusal.advice}</p>`
      : ''
  const other =
    refusal === null || named.includes(refusal.field ?? '')
      ? ''
      : note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)
  const pick = (kind: ListEntry['kind'], words: string) =>
    html`<option value="${kind}"${typed?.kind === kind ? html` selected` : ''}>${words}</option>`
  const kind = html`<label>What<span class="in"><select name="kind"${wrong('kind')}>${pick('ip', 'Client address')}${pick('sender', 'Sender')}</select>${error('kind')}</span></label>`
  return html`<form class="body stack form" method="post" action="/lists/add" hx-post="/lists/add" ${MORPH} aria-label="Add to the ${list} list">${csrf(visit)}<input type="hidden" name="list" value="${list}">${other}
<div class="fields">${kind}<label>Address, network, sender or @domain<span class="in"><input class="wide" name="value" value="${typed?.value ?? ''}" placeholder="192.0.2.0/24 or @example.com" required maxlength="1000" autocomplete="off" autocapitalize="off" spellcheck="false"${wrong('value')}>${error('value')}</span></label><label>Note<span class="in"><input class="wide" name="note" value="${typed?.note ?? ''}" placeholder="why, for whoever reads it next year" maxlength="200" autocomplete="off"${wrong('note')}>${error('note')}</span></label><button class="btn">Add</button></div></form>`
}

const KINDS: Readonly<Record<ListEntry['kind'], string>> = { ip: 'client', sender: 'sender' }

function table(site: Site, visit: Visit, list: List, acts: boolean): Html {
  const entries = site.admin.listEntries(list)
  if (entries.length === 0) return html`<div class="body"><small>The list is empty.</small></div>`
  const nowMs = site.clock.wallMs()
  const shown = entries.slice(0, SHOWN)
  const rest =
    entries.length > shown.length
      ? html`<div class="body first"><small>And ${count(entries.length - shown.length)} more; the API lists them all.</small></div>`
      : ''
  return html`<div class="scroll"><table class="entries"><caption class="sr">${counted(entries.length, 'entry', 'entries')}</caption><thead><tr><th scope="col">Who</th><th scope="col">Note</th><th scope="col">Added</th>${acts ? html`<th scope="col"><span class="sr">Actions</span></th>` : ''}</tr></thead><tbody>${shown.map(
    ({ kind, value, note: words, by, addedMs }) => {
      const fields = { list, kind, value }
      return html`<tr><td><b class="mono">${value}</b><br><small>${KINDS[kind]}</small></td><td class="long">${words}</td><td>${longTime(addedMs, nowMs)}<br><small>by ${by}</small></td>${acts ? html`<td class="num">${act(visit, '/lists/remove', { words: 'Remove', small: true, fields })}</td>` : ''}</tr>`
    },
  )}</tbody></table></div>${rest}`
}

/** Nothing when no network is refused. */
function refusedCard(site: Site, visit: Visit, acts: boolean): Html | '' {
  const bans = site.admin.bans()
  if (bans.length === 0) return ''
  const nowMs = site.clock.wallMs()
  const rows = bans.slice(0, SHOWN).map(({ network, untilMs }) => {
    const lift = act(visit, '/lists/lift', { words: 'Lift', small: true, fields: { network } })
    return html`<tr><td><b class="mono">${network}</b></td><td>${longTime(untilMs, nowMs)}</td>${acts ? html`<td class="num">${lift}</td>` : ''}</tr>`
  })
  return html`<section class="card" aria-labelledby="bans"><header><h2 id="bans">Refused for a while</h2><small>They asked for too many recipients that nobody has</small></header>
<div class="scroll"><table class="entries"><caption class="sr">${counted(bans.length, 'network', 'networks')}</caption><thead><tr><th scope="col">Network</th><th scope="col">Until</th>${acts ? html`<th scope="col"><span class="sr">Actions</span></th>` : ''}</tr></thead><tbody>${rows}</tbody></table></div></section>`
}
