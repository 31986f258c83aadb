/** The trace: every mail and recipient, where it is and why. */
import { Elysia, t } from 'elysia'
import type { SearchResult } from '../../src/admin/contract.ts'
import { parseMessageId } from '../../src/base/ids.ts'
import type { TraceRow } from '../../src/message/rows.ts'
import { type Html, html, seeOther } from '../html.ts'
import { beforeOf, limitsOf, mistakes, ROWS, tabs, turning } from '../parts/lists.ts'
import { empty, type Limits, meter, placeOf, track } from '../parts/marks.ts'
import { rulesInWords } from '../parts/rules.ts'
import { shell } from '../parts/shell.ts'
import { count, score, sender, shortTime, subjectOf, time } from '../parts/words.ts'
import type { Site } from '../site.ts'

const TABS = [
  { words: 'All', query: '' },
  { words: 'All but delivered', query: '-is:delivered' },
  { words: 'Held', query: 'is:held' },
  { words: 'Rejected', query: 'is:rejected' },
  { words: 'Deferred', query: 'is:deferred' },
  { words: 'Waiting', query: 'is:waiting' },
  { words: 'Unknown', query: 'is:unknown' },
] as const

export function messagesPage(site: Site) {
  const { admin, guard } = site
  return new Elysia().get(
    '/messages',
    ({ request, query }) => {
      const text = (query.q ?? '').trim()
      const id = parseMessageId(text.toLowerCase())
      if (id !== null) return seeOther(`/messages/${id}`)
      const found = admin.search({ text, limit: ROWS, cursor: query.cursor ?? null })
      const before = query.cursor === undefined ? 0 : beforeOf(query.before)
      const main = html`<div class="head"><h1>Messages</h1><p>One row for each mail and recipient</p></div>
<div class="chips">${tabs('/messages', 'Verdict', TABS, text)}<p class="muted">${capital(found.words)}: <b>${count(found.total)}</b></p></div>
${mistakes(found.mistakes)}
${help(found)}
<section class="card" id="list" aria-label="Messages">${list(site, found, text)}</section>
${turning({ path: '/messages', query: text, cursor: found.cursor, before, rows: found.rows.length, total: found.total })}`
      return shell(site, guard.visitOf(request), {
        title: 'Messages',
        at: 'messages',
        main,
        query: text,
      })
    },
    {
      query: t.Object({
        q: t.Optional(t.String({ maxLength: 1_000 })),
        cursor: t.Optional(t.String({ maxLength: 200 })),
        before: t.Optional(t.String({ maxLength: 20 })),
      }),
    },
  )
}

/** Drawn when something is wrong; an empty list has the same words in it. */
function help({ mistakes: wrong, rows }: SearchResult): Html | '' {
  if (wrong.length === 0 || rows.length === 0) return ''
  return html`<details class="card"><summary class="body first">What can I write?</summary><div class="body">${QUERY_HELP}</div></details>`
}

const QUERY_HELP = html`<dl class="facts"><dt><code>keller invoice</code></dt><dd>both words, in any field</dd><dt><code>from: to: subject:</code></dt><dd>part of an address or subject; <code>@example.com</code> is a domain</dd><dt><code>is:</code></dt><dd>held, delivered, rejected, deferred, waiting, unknown, released, bounced, deleted</dd><dt><code>rule:GTUBE</code></dt><dd>the rule fired</dd><dt><code>ip: id: node:</code></dt><dd>where it came from, which one, on which node</dd><dt><code>score:&gt;8 size:&gt;10MB</code></dt><dd>compare</dd><dt><code>after:24h before:2026-03-11</code></dt><dd>when</dd><dt><code>-from:news</code></dt><dd>not</dd><dt><code>to:@a.example,@b.example</code></dt><dd>one of</dd></dl>`

function list(site: Site, found: SearchResult, text: string): Html {
  if (found.rows.length === 0 && text === '') {
    return empty(
      'No mail has come in yet',
      html`Every mail that reaches this node appears here, also those that are refused. It listens on <code>${site.admin.status().smtp}</code>.`,
    )
  }
  if (found.rows.length === 0) {
    return html`${empty('No mail matches', html`${capital(found.words)}: there is none in the time that is kept. Fewer words find more.`, html`<a class="btn" href="/messages">Clear the search</a>`)}<div class="body">${QUERY_HELP}</div>`
  }
  const limits = limitsOf(site)
  const nowMs = site.clock.wallMs()
  return html`<table class="data plain" hx-ignore><caption class="sr">Messages, newest first</caption>
<thead><tr><th class="w-time" scope="col" aria-sort="descending">Time</th><th scope="col">Mail</th><th class="w-state" scope="col">Where is it</th><th scope="col">Why</th><th class="w-score num hide" scope="col">Score</th></tr></thead>
<tbody>${found.rows.map((row) => line(row, limits, nowMs))}</tbody></table>`
}

function line(row: TraceRow, limits: Limits, nowMs: number): Html {
  const place = placeOf(row)
  return html`<tr><td class="a3 nowrap">${time(row.atMs, shortTime(row.atMs, nowMs))}</td><td class="a2"><div class="two"><a href="/messages/${row.id}">${subjectOf(row.subject)}</a><small>${sender(row.sender)} → ${row.recipient}</small></div></td><td class="full"><div class="two state">${track(place)}<small>${place.more}</small></div></td><td class="full"><div class="two why"><span>${why(row)}</span></div></td><td class="hide num">${score(row.score)}${meter(row.score, limits)}</td></tr>`
}

/** What was seen, in words; a symbol stands on the page of the mail. */
export function why(row: TraceRow): string {
  const rules = rulesInWords(row.rules)
  const said = row.deliveryReply
  switch (row.delivery) {
    case 'deferred':
    case 'bounced':
    case 'inDoubt':
      return said === null ? 'The next hop did not take it' : `Next hop: ${said}`
    case 'released':
      return rules === '' ? 'Was held' : `Was held: ${rules}`
    default:
      break
  }
  if (rules !== '') return rules
  if (row.accept === 'accepted') return 'Nothing found'
  return row.acceptReply
}

export function capital(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1)
}
