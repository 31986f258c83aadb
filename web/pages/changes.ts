/** Who changed what, newest first, and the way back. */
import { Elysia, t } from 'elysia'
import { html, seeOther } from '../html.ts'
import { changeLine } from '../parts/changes.ts'
import { link } from '../parts/forms.ts'
import { empty } from '../parts/marks.ts'
import { shell } from '../parts/shell.ts'
import { counted } from '../parts/words.ts'
import type { Site } from '../site.ts'

const FEW = 100
const MANY = 1_000

export function changesPages(site: Site) {
  const { admin, guard, flashes } = site
  return new Elysia({ prefix: '/changes' })
    .get(
      '/',
      ({ request, query }) => {
        const visit = guard.visitOf(request)
        const most = query.all === '1' ? MANY : FEW
        const changes = admin.changes(most)
        const nowMs = site.clock.wallMs()
        const list =
          changes.length === 0
            ? empty(
                'Nothing was changed yet',
                html`Every change of a setting, a domain or an operator is kept here with its author.`,
              )
            : html`<ul class="todo log">${changes.map((change) => changeLine(site, visit, change, nowMs))}</ul>`
        const more =
          changes.length === most && most === FEW
            ? html`<div class="acts"><a class="btn small" href="${link('/changes', { all: '1' })}">Show up to ${MANY}</a></div>`
            : ''
        const main = html`<div class="head"><h1>Changes</h1><p>${counted(changes.length, 'change')}, newest first</p></div>
<section class="card" id="list" aria-label="Changes">${list}</section>${more}`
        return shell(site, visit, { title: 'Changes', at: 'changes', main })
      },
      { query: t.Object({ all: t.Optional(t.String({ maxLength: 1 })) }) },
    )
    .post(
      '/:id/undo',
      ({ request, params }) => {
        admin.undoChange(guard.authorOf(request), params.id)
        const [last] = admin.changes(1)
        flashes.add(guard.visitOf(request).session, 'The change is undone', {
          undo: last?.id ?? null,
        })
        return seeOther('/changes')
      },
      { params: t.Object({ id: t.String({ maxLength: 200 }) }) },
    )
}
