/** What was set twice while nodes were apart: all values side by side, and the choice. */
import { Elysia, t } from 'elysia'
import { RefusalError } from '../../src/base/errors.ts'
import { html, safePath, seeOther } from '../html.ts'
import { conflictCard, conflictTitle } from '../parts/conflicts.ts'
import { empty, note } from '../parts/marks.ts'
import { shell } from '../parts/shell.ts'
import type { Site } from '../site.ts'

const SHOWN = 100

export function conflictPages(site: Site) {
  const { admin, guard, flashes } = site
  return new Elysia({ prefix: '/conflicts' })
    .get('/', ({ request }) => conflictsPage(site, request, null))
    .post(
      '/keep',
      ({ request, body }) => {
        const { session } = guard.visitOf(request)
        try {
          admin.keep(guard.authorOf(request), body.key, body.side)
          flashes.add(session, `${conflictTitle(body.key)}: the conflict is settled on all nodes`)
          return seeOther(safePath(body.back, '/conflicts'))
        } catch (error) {
          if (!(error instanceof RefusalError) || error.code === 'forbidden') throw error
          return conflictsPage(site, request, error)
        }
      },
      {
        body: t.Object({
          key: t.String({ maxLength: 1_000 }),
          side: t.String({ maxLength: 200 }),
          back: t.Optional(t.String({ maxLength: 2_000 })),
        }),
      },
    )
}

function conflictsPage(site: Site, request: Request, refusal: RefusalError | null): Response {
  const visit = site.guard.visitOf(request)
  const rows = site.admin.conflicts()
  const shown = rows.slice(0, SHOWN)
  const list =
    rows.length === 0
      ? html`<section class="card">${empty('Nothing to choose', html`When two people set the same thing while their nodes are apart, both values are shown here.`)}</section>`
      : shown.map((row, i) => conflictCard(site, visit, row, { back: '/conflicts', id: i }))
  const more =
    rows.length > shown.length
      ? html`<p class="muted">And ${rows.length - shown.length} more.</p>`
      : ''
  const main = html`<div class="head"><h1>Conflicts</h1><p>Set twice while nodes were apart. One value is in force everywhere; keep it or the other.</p></div>
${refusal === null ? '' : note('warn', html`<b>${refusal.message}</b> ${refusal.advice}`)}
${list}${more}`
  const status = refusal === null ? 200 : refusal.code === 'notFound' ? 404 : 409
  return shell(site, visit, { title: 'Conflicts', at: 'conflicts', main, status })
}
