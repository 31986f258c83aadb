/** Held mail: filter, look, release, delete; one or many. */
import { Elysia, t } from 'elysia'
import type { HeldDetail } from '../../src/admin/contract.ts'
import { RefusalError } from '../../src/base/errors.ts'
import { some } from '../../src/base/prose.ts'
import type { HeldRow } from '../../src/message/rows.ts'
import type { Visit } from '../guard.ts'
import { type Html, html, safePath, seeOther } from '../html.ts'
import { act, csrf, link, mayAct, SWAP } from '../parts/forms.ts'
import {
  canRelease,
  type Holders,
  holders,
  isDoubtful,
  isPending,
  pendingNote,
  waitsNote,
} from '../parts/holder.ts'
import { beforeOf, limitsOf, mistakes, ROWS, tabs, turning } from '../parts/lists.ts'
import { frame } from '../parts/mail.ts'
import { empty, glyph, type Limits, meter, note } from '../parts/marks.ts'
import { members } from '../parts/nodes.ts'
import { rulesInWords, unknownWords } from '../parts/rules.ts'
import { shell } from '../parts/shell.ts'
import {
  clockTime,
  count,
  counted,
  day,
  longTime,
  score,
  sender,
  shortTime,
  size,
  subjectOf,
  time,
} from '../parts/words.ts'
import type { Site } from '../site.ts'
import { capital } from './messages.ts'

const TABS = [
  { words: 'All', query: '' },
  { words: 'Last 24 h', query: 'after:24h' },
  { words: 'Score above 12', query: 'score:>12' },
  { words: 'With an unknown check', query: 'is:unknown' },
] as const

/** A page of marked rows, and what a forged form may hold at most. */
const BULK_MAX = 200

const LIST = t.Object({
  q: t.Optional(t.String({ maxLength: 1_000 })),
  cursor: t.Optional(t.String({ maxLength: 200 })),
  before: t.Optional(t.String({ maxLength: 20 })),
  peek: t.Optional(t.String({ maxLength: 64 })),
})

type Asked = {
  readonly q?: string
  readonly cursor?: string
  readonly before?: string
  readonly peek?: string
}

export function quarantinePages(site: Site) {
  const { admin, guard, flashes } = site
  return new Elysia({ prefix: '/quarantine' })
    .get('/', ({ request, query }) => listPage(site, request, query), { query: LIST })
    .get(
      '/:id/peek',
      ({ request, params, query }) => {
        const back = safePath(query.back, '/quarantine')
        return new Response(peekOf(site, guard.visitOf(request), params.id, back).text, {
          headers: { 'content-type': 'text/html; charset=utf-8' },
        })
      },
      {
        params: t.Object({ id: t.String({ maxLength: 64 }) }),
        query: t.Object({ back: t.Optional(t.String({ maxLength: 2_000 })) }),
      },
    )
    .post(
      '/bulk',
      async ({ request, body }) => {
        const visit = guard.visitOf(request)
        const ids = idsOf(body.mid)
        const back = safePath(body.back, '/quarantine')
        if (ids.length === 0) {
          flashes.add(visit.session, 'No mail is selected', { kind: 'failed' })
          return seeOther(back)
        }
        if (body.act === 'delete') return deleteMany(site, visit, ids, back)
        const release = body.act === 'release'
        const told = await eachOf(ids, async (id) => {
          const author = guard.authorOf(request)
          return release
            ? isPending(await admin.release(author, id), 'release')
            : isPending(await admin.deleteHeld(author, id), 'delete')
        })
        flashes.add(visit.session, outcome(release ? 'Released' : 'Deleted', told), {
          kind: told.failed.length > 0 ? 'failed' : 'done',
        })
        return seeOther(back)
      },
      {
        body: t.Object({
          act: t.Union([t.Literal('release'), t.Literal('delete'), t.Literal('delete-now')]),
          mid: t.Optional(t.Union([t.String(), t.Array(t.String())])),
          back: t.Optional(t.String({ maxLength: 2_000 })),
        }),
      },
    )
}

function idsOf(mid: string | readonly string[] | undefined): readonly string[] {
  const ids = mid === undefined ? [] : typeof mid === 'string' ? [mid] : mid
  return [...new Set(ids)].slice(0, BULK_MAX)
}

type Told = {
  readonly done: number
  /** Wait for nodes that do not answer. */
  readonly pending: number
  readonly already: number
  /** Perhaps released before; a person decides about each. */
  readonly doubtful: number
  readonly failed: readonly string[]
}

/**
 * All at once, so that an owner elsewhere is asked once for all of its mails; what fails does not
 * stop the rest. `run` says whether it waits.
 */
async function eachOf(
  ids: readonly string[],
  run: (id: string) => Promise<boolean>,
): Promise<Told> {
  let [done, pending, already, doubtful] = [0, 0, 0, 0]
  const failed: string[] = []
  for (const told of await Promise.allSettled(ids.map(run))) {
    if (told.status === 'fulfilled') {
      if (told.value) pending += 1
      else done += 1
      continue
    }
    const error: unknown = told.reason
    if (!(error instanceof RefusalError) || error.code === 'forbidden') throw error
    if (error.code === 'conflict' || error.code === 'notFound') already += 1
    else if (error.code === 'doubtful') doubtful += 1
    else failed.push(error.message)
  }
  return { done, pending, already, doubtful, failed }
}

function outcome(verb: string, { done, pending, already, doubtful, failed }: Told): string {
  const parts = [`${verb} ${counted(done, 'mail')}`]
  if (pending > 0) parts.push(`${pending} ${pending === 1 ? 'waits' : 'wait'} for a node`)
  if (already > 0) parts.push(`${already} ${already === 1 ? 'was' : 'were'} no longer held`)
  if (doubtful > 0) parts.push(`${doubtful} may have been released before: look at each`)
  if (failed.length > 0) parts.push(`${failed.length} failed: ${failed[0]}`)
  return parts.join(', ')
}

function listPage(site: Site, request: Request, { q = '', cursor, before, peek }: Asked): Response {
  const { admin, clock } = site
  const visit = site.guard.visitOf(request)
  const text = q.trim()
  const found = admin.held({ text, limit: ROWS, cursor: cursor ?? null })
  const skipped = cursor === undefined ? 0 : beforeOf(before)
  const back = link('/quarantine', { q: text, cursor, before: skipped === 0 ? null : skipped })
  const chosen = found.rows.find(({ id }) => id === peek) ?? found.rows[0]
  const nowMs = clock.wallMs()
  const body =
    found.rows.length === 0
      ? html`<section class="card">${nothing(site, text)}</section>`
      : html`<div class="list-peek"><div class="stack">
<form class="card" id="list" method="post" action="/quarantine/bulk">${csrf(visit)}<input type="hidden" name="back" value="${back}">
${table(found.rows, { at: chosen?.id ?? '', back, limits: limitsOf(site), nowMs, acts: mayAct(visit), nodes: members(admin.cluster()).length > 1, by: holders(site) })}</form>
${mayAct(visit) ? BULK : ''}
</div>
<aside class="peek card" id="peek" aria-label="Selected mail" aria-live="polite">${chosen === undefined ? '' : peekOf(site, visit, chosen.id, back)}</aside></div>`
  const main = html`<div class="head"><h1>Quarantine</h1><p>${text === '' ? `${counted(found.total, 'mail')} held` : `${capital(found.words)}: ${count(found.total)}`}</p>
<form class="acts filter" role="search" action="/quarantine" aria-label="Filter the quarantine"><input name="q" type="search" value="${text}" placeholder="from:, to:, rule:, score:&gt;12" aria-label="Filter held mails" maxlength="1000" spellcheck="false" autocapitalize="off"><button class="btn">Filter</button></form></div>
${tabs('/quarantine', 'Kind', TABS, text)}
${mistakes(found.mistakes)}
<div id="fresh"></div>
${body}
${turning({ path: '/quarantine', query: text, cursor: found.cursor, before: skipped, rows: found.rows.length, total: found.total })}`
  const poll = {
    q: text,
    seen: skipped === 0 ? (found.rows[0]?.id ?? 'none') : '',
  }
  return shell(site, visit, {
    title: 'Quarantine',
    at: 'quarantine',
    main,
    poll,
  })
}

function nothing(site: Site, text: string): Html {
  if (text !== '') {
    return empty(
      'No held mail matches',
      html`Only mails that are held now are here. The others are in Messages.`,
      html`<a class="btn" href="/quarantine">Show all held mails</a>`,
    )
  }
  const { hold } = limitsOf(site)
  return empty(
    'Quarantine is empty',
    html`Held mails appear here. Mails are held from a score of ${hold}.`,
  )
}

type TableFacts = {
  readonly at: string
  readonly back: string
  readonly limits: Limits
  readonly nowMs: number
  readonly acts: boolean
  /** There is more than one node to hold them. */
  readonly nodes: boolean
  readonly by: Holders
}

function table(rows: readonly HeldRow[], facts: TableFacts): Html {
  const check = facts.acts
    ? html`<th class="w-check"><input type="checkbox" aria-label="Select all on this page" data-all></th>`
    : ''
  return html`<table class="data${facts.acts ? '' : ' plain'}"><caption class="sr">Held mails, newest first</caption>
<thead><tr>${check}<th class="w-time" scope="col">${facts.nodes ? 'Held on' : 'Held'}</th><th scope="col">Mail</th><th scope="col" class="w-state">Why</th><th class="w-score num hide" scope="col">Score</th></tr></thead>
<tbody>${rows.map((row) => line(row, facts))}</tbody></table>`
}

function line(row: HeldRow, { at, back, limits, nowMs, acts, nodes, by }: TableFacts): Html {
  const subject = subjectOf(row.subject)
  const check = acts
    ? html`<td class="a1"><input type="checkbox" name="mid" value="${row.id}" aria-label="Select ${subject}"></td>`
    : ''
  // The link's text is a stranger's, its attributes are ours: htmx reads attributes only.
  return html`<tr id="m-${row.id}"${row.id === at ? html` class="at"` : ''}>${check}<td class="a3 nowrap">${time(row.heldMs, shortTime(row.heldMs, nowMs))}${nodes ? html`<br><small>${row.owner.name}</small>` : ''}</td><td class="a2"><div class="two"><a href="/messages/${row.id}" hx-get="${link(`/quarantine/${row.id}/peek`, { back })}" hx-target="#peek" hx-swap="innerHTML" hx-status:5xx="swap:none"><span hx-ignore>${subject}</span></a><small hx-ignore>${sender(row.sender)} → ${some(row.recipients, 1)}</small></div></td><td class="full"><div class="two why" hx-ignore>${reason(row)}${by.line(row)}</div></td><td class="hide num">${score(row.score)}${meter(row.score, limits)}</td></tr>`
}

function reason(row: HeldRow): Html {
  const [unknown] = row.unknowns
  const rules = rulesInWords(row.rules)
  if (unknown === undefined)
    return html`<span>${rules === '' ? 'Held by its verdict' : rules}</span>`
  const mark = html`<span><span class="c unknown">${glyph('unknown')}</span>&nbsp; ${unknownWords(unknown.inspector)}</span>`
  return rules === '' ? mark : html`${mark}<small>${rules}</small>`
}

const BULK = html`<div class="bulk" role="region" aria-label="Selected mails"><b data-count>Selected</b><button class="btn primary small" form="list" name="act" value="release" hx-post="/quarantine/bulk" ${SWAP}>Release</button><button class="btn small danger" form="list" name="act" value="delete">Delete</button><button class="btn quiet small" type="reset" form="list" data-none>Clear</button></div>`

/** The card beside the list. @throws RefusalError notFound */
function peekOf(site: Site, visit: Visit, id: string, back: string): Html {
  const detail = site.admin.heldOne(id)
  const { row, claims } = detail
  if (row.recipients.length > 0) return peekCard(site, visit, detail, back)
  const [last] = claims.toSorted((a, b) => b.atMs - a.atMs)
  const nowMs = site.clock.wallMs()
  const words = last === undefined ? '' : `${last.kind} by ${last.by} ${longTime(last.atMs, nowMs)}`
  return empty(
    'No longer held',
    html`${capital(words)}.`,
    html`<a class="btn" href="/messages/${id}">Open its page</a>`,
  )
}

function peekCard(site: Site, visit: Visit, detail: HeldDetail, back: string): Html {
  const { row, waits } = detail
  const nowMs = site.clock.wallMs()
  const absent = holders(site).absence(row)
  const { hold } = limitsOf(site)
  const [worst] = row.findings.toSorted((a, b) => b.score - a.score)
  const [unknown] = row.unknowns
  const why =
    worst?.evidence ??
    (unknown === undefined ? '' : `${unknownWords(unknown.inspector)}. ${unknown.cause}`)
  const acts = mayAct(visit)
    ? html`<div class="acts">${!canRelease(row) || isDoubtful(detail) ? '' : act(visit, `/messages/${row.id}/release`, { words: row.recipients.length > 1 ? 'Release to all' : 'Release', kind: 'primary', fields: { back } })}<a class="btn danger" href="${link(`/messages/${row.id}/delete`, { back })}">Delete</a></div>`
    : ''
  return html`<header><h2 hx-ignore>${subjectOf(row.subject)}</h2><small><a href="/messages/${row.id}">Open page</a></small></header>
<div class="body stack">
<div hx-ignore><p><b class="c held">Held</b> since ${day(row.heldMs, nowMs)} ${clockTime(row.heldMs)}. <b>${why}</b></p></div>
<dl class="facts" hx-ignore><dt>Sender</dt><dd>${sender(row.sender)}</dd>${row.from === null ? '' : html`<dt>From</dt><dd>${row.from}</dd>`}<dt>To</dt><dd>${some(row.recipients, 5)}</dd><dt>Client</dt><dd>${row.clientIp}</dd><dt>Score</dt><dd>${score(row.score)}, held from ${hold}</dd><dt>Size</dt><dd>${size(row.sizeBytes)}</dd><dt>Deleted</dt><dd>${longTime(row.expiresMs, nowMs)}</dd><dt>Held by</dt><dd>${some(
    [row.owner, ...row.holders].map(({ name }) => name),
    4,
  )}</dd></dl>
${waitsNote(waits, nowMs, isDoubtful(detail) ? html`<a class="btn small" href="/messages/${row.id}">Decide</a>` : null)}${pendingNote(row, nowMs)}${acts}</div>
${absent === null ? frame(row.id) : html`<div class="body">${note('unknown', absent)}</div>`}`
}

/** Asks once more before many are deleted; also the only way without script to see which. */
function deleteMany(site: Site, visit: Visit, ids: readonly string[], back: string): Response {
  const rows = ids.flatMap((id) => {
    try {
      return [site.admin.heldOne(id).row]
    } catch (error) {
      if (error instanceof RefusalError && error.code === 'notFound') return []
      throw error
    }
  })
  const main = html`<div class="head"><h1>Delete ${counted(rows.length, 'mail')}?</h1></div>
${note('warn', html`<b>This cannot be undone.</b> The recipients will not receive them, and the senders are not told.`)}
<form class="card" method="post" action="/quarantine/bulk">${csrf(visit)}<input type="hidden" name="back" value="${back}">
<ul class="todo" hx-ignore>${rows.map((row) => html`<li>${glyph('held')}<div class="two"><input type="hidden" name="mid" value="${row.id}"><b>${subjectOf(row.subject)}</b><small>${sender(row.sender)} → ${some(row.recipients)}</small></div></li>`)}</ul>
<div class="body first acts"><button class="btn danger" name="act" value="delete-now">Delete</button><a class="btn quiet" href="${back}">Keep them</a></div></form>`
  return shell(site, visit, { title: 'Delete mails', at: 'quarantine', main })
}
