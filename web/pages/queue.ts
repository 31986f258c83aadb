/** What waits for delivery: why, when again; deliver now, give up. */
import { Elysia, t } from 'elysia'
import { RefusalError } from '../../src/base/errors.ts'
import type { QueueRow } from '../../src/message/rows.ts'
import { type Html, html, safePath, seeOther } from '../html.ts'
import { act, csrf, mayAct } from '../parts/forms.ts'
import { beforeOf, ROWS, turning } from '../parts/lists.ts'
import { empty, type Place, track } from '../parts/marks.ts'
import { attemptWords, nextWords } from '../parts/message-cards.ts'
import { members } from '../parts/nodes.ts'
import { shell } from '../parts/shell.ts'
import { counted, sender, shortTime, some, span, subjectOf, time } from '../parts/words.ts'
import type { Site } from '../site.ts'

const ID = t.Object({ id: t.String({ maxLength: 64 }) })
const BACK = t.Object({ back: t.Optional(t.String({ maxLength: 2_000 })) })

export function queuePages(site: Site) {
  const { admin, guard, flashes } = site
  return new Elysia({ prefix: '/queue' })
    .get('/', ({ request, query }) => listPage(site, request, query), {
      query: t.Object({
        cursor: t.Optional(t.String({ maxLength: 200 })),
        before: t.Optional(t.String({ maxLength: 20 })),
      }),
    })
    .post(
      '/retry',
      ({ request }) => {
        const due = admin.retry(guard.authorOf(request), null)
        flashes.add(guard.visitOf(request).session, `${counted(due, 'mail')} due now`)
        return seeOther('/queue')
      },
      { body: BACK },
    )
    .post(
      '/:id/retry',
      ({ request, params, body }) => {
        const due = admin.retry(guard.authorOf(request), params.id)
        const words = due === 0 ? 'This mail no longer waits' : 'The mail is delivered now'
        flashes.add(guard.visitOf(request).session, words)
        return seeOther(safePath(body.back, '/queue'))
      },
      { params: ID, body: BACK },
    )
    .get('/:id/drop', ({ request, params }) => dropPage(site, request, params.id), { params: ID })
    .post(
      '/:id/drop',
      async ({ request, params, body }) => {
        const bounce = body.bounce === 'yes'
        await admin.drop(guard.authorOf(request), params.id, bounce)
        const told = bounce ? 'the sender is told' : 'nobody is told'
        flashes.add(guard.visitOf(request).session, `Gave up on one mail, ${told}`)
        return seeOther('/queue')
      },
      { params: ID, body: t.Object({ bounce: t.Optional(t.String({ maxLength: 10 })) }) },
    )
}

function listPage(
  site: Site,
  request: Request,
  { cursor, before }: { readonly cursor?: string; readonly before?: string },
): Response {
  const visit = site.guard.visitOf(request)
  const found = site.admin.queue({ limit: ROWS, cursor: cursor ?? null })
  const skipped = cursor === undefined ? 0 : beforeOf(before)
  const nowMs = site.clock.wallMs()
  const isAlone = members(site.admin.cluster()).length < 2
  const all =
    mayAct(visit) && found.total > 0
      ? html`<div class="acts">${act(visit, '/queue/retry', { words: 'Deliver all now' })}</div>`
      : ''
  const list =
    found.rows.length === 0
      ? empty(
          isAlone ? 'The queue is empty' : 'The queue of this node is empty',
          html`Mails wait here when the next hop does not take them at once.${isAlone ? '' : html` Those of the other nodes are counted on the page <a href="/cluster">Cluster</a>.`}`,
        )
      : html`<table class="data plain"><caption class="sr">Waiting mails, newest first</caption>
<thead><tr><th class="w-time" scope="col">Since</th><th scope="col">Mail</th><th class="w-state" scope="col">State</th><th scope="col">Why</th>${mayAct(visit) ? html`<th class="w-acts" scope="col"><span class="sr">Actions</span></th>` : ''}</tr></thead>
<tbody>${found.rows.map((row) => line(row, nowMs, mayAct(visit) ? (path, words) => act(visit, path, { words, small: true }) : null))}</tbody></table>`
  const main = html`<div class="head"><h1>Queue</h1><p>${found.total === 0 ? (isAlone ? 'Nothing waits' : 'Nothing waits here') : `${counted(found.total, 'mail')} accepted${isAlone ? '' : ' by this node'} and not delivered yet`}</p>${all}</div>
<div id="fresh"></div>
<section class="card" id="list" aria-label="Waiting mails">${list}</section>
${turning({ path: '/queue', query: '', cursor: found.cursor, before: skipped, rows: found.rows.length, total: found.total })}`
  return shell(site, visit, {
    title: 'Queue',
    at: 'queue',
    main,
    poll: { seen: skipped === 0 ? String(found.total) : '' },
  })
}

const STATE: Readonly<Record<QueueRow['state'], Place>> = {
  queued: { door: 'delivered', after: 'none', word: 'Waiting', more: '' },
  deferred: { door: 'delivered', after: 'deferred', word: 'Deferred', more: '' },
  inDoubt: { door: 'delivered', after: 'unknown', word: 'In doubt', more: '' },
}

type Button = (path: string, words: string) => Html

function line(row: QueueRow, nowMs: number, button: Button | null): Html {
  const open = row.recipients.filter(
    ({ state }) => !['done', 'failed', 'dropped', 'held'].includes(state),
  )
  const [first] = open
  const attempts = Math.max(0, ...open.map((one) => one.attempts))
  const next = open.map(({ nextTryMs }) => nextTryMs).filter((at) => at !== null)
  const when =
    first === undefined
      ? ''
      : nextWords(next.length === 0 ? null : Math.min(...next), nowMs).slice(2)
  const said = open.find(({ lastReply }) => lastReply !== null)?.lastReply ?? 'Waits for its turn'
  const acts =
    button === null
      ? ''
      : html`<td class="full num"><div class="acts right">${button(`/queue/${row.id}/retry`, 'Deliver now')}<a class="btn small danger" href="/queue/${row.id}/drop">Give up</a></div></td>`
  return html`<tr><td class="a3 nowrap">${time(row.acceptedMs, shortTime(row.acceptedMs, nowMs))}</td><td class="a2"><div class="two" hx-ignore><a href="/messages/${row.id}">${subjectOf(row.subject)}</a><small>${sender(row.sender)} → ${some(
    open.map(({ address }) => address),
    1,
  )}</small></div></td><td class="full"><div class="two state">${track(STATE[row.state])}<small>${attemptWords(attempts).toLowerCase()}</small></div></td><td class="full"><div class="two why" hx-ignore><span>${said}</span><small>${when}</small></div></td>${acts}</tr>`
}

function dropPage(site: Site, request: Request, id: string): Response {
  const visit = site.guard.visitOf(request)
  const { queue } = site.admin.message(id)
  if (queue === null) {
    throw new RefusalError(
      'notFound',
      'id',
      'This mail does not wait in the queue.',
      'Look at its page.',
    )
  }
  const nowMs = site.clock.wallMs()
  const main = html`<div class="head"><h1>Give up on this mail?</h1></div>
<form class="card" method="post" action="/queue/${id}/drop">${csrf(visit)}
<div class="body first stack"><div hx-ignore><p><b>${subjectOf(queue.subject)}</b><br><span class="muted">from ${sender(queue.sender)} to ${some(
    queue.recipients.map(({ address }) => address),
    5,
  )}, ${span(nowMs - queue.acceptedMs)} old</span></p></div>
<p>Postern stops trying to deliver it. This cannot be undone.</p>
<fieldset class="stack"><legend class="sr">Is the sender told?</legend>
<label><input type="radio" name="bounce" value="yes" checked> Tell the sender that it was not delivered</label>
<label><input type="radio" name="bounce" value="no"> Tell nobody: the mail is lost without a trace for its sender</label></fieldset>
<div class="acts"><button class="btn danger">Give up</button><a class="btn quiet" href="/messages/${id}">Keep trying</a></div></div></form>`
  return shell(site, visit, { title: 'Give up on a mail', at: 'queue', main })
}
