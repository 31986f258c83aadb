/** Who may sign in: list, add, set a password, remove. */
import { Elysia, t } from 'elysia'
import { RefusalError } from '../../src/base/errors.ts'
import type { Visit } from '../guard.ts'
import { type Html, html, seeOther } from '../html.ts'
import { csrf, mayAct, mayChange } from '../parts/forms.ts'
import { badge, note } from '../parts/marks.ts'
import { shell } from '../parts/shell.ts'
import { NO_TOKEN, type TokenSheet, tokenCard, tokensList } from '../parts/tokens.ts'
import { counted, longTime } from '../parts/words.ts'
import type { Site } from '../site.ts'
import { mustMatch } from './login.ts'

const NAME = t.Object({ name: t.String({ maxLength: 200 }) })
const PASSWORDS = {
  password: t.String({ maxLength: 1_000 }),
  again: t.String({ maxLength: 1_000 }),
}

type Typed = { readonly name: string; readonly role: string; readonly refusal: RefusalError | null }
const BLANK: Typed = { name: '', role: 'admin', refusal: null }

export function operatorPages(site: Site) {
  const { admin, guard, flashes } = site
  return new Elysia({ prefix: '/operators' })
    .get('/', ({ request }) => operatorsPage(site, request, {}))
    .post(
      '/',
      async ({ request, body }) => {
        const { name, role, password, again } = body
        try {
          mustMatch(password, again)
          await admin.addOperator(guard.authorOf(request), name, password, role)
          flashes.add(guard.visitOf(request).session, `${name.trim()} may sign in now`)
          return seeOther('/operators')
        } catch (error) {
          if (!(error instanceof RefusalError) || error.code === 'forbidden') throw error
          return operatorsPage(site, request, { typed: { name, role, refusal: error } })
        }
      },
      {
        body: t.Object({
          ...PASSWORDS,
          name: t.String({ maxLength: 200 }),
          role: t.String({ maxLength: 20 }),
        }),
      },
    )
    .get('/:name', ({ request, params }) => onePage(site, request, params.name, null), {
      params: NAME,
    })
    .post(
      '/:name/password',
      async ({ request, params, body }) => {
        try {
          mustMatch(body.password, body.again)
          await admin.changePassword(guard.authorOf(request), params.name, body.password)
          flashes.add(guard.visitOf(request).session, `${params.name} has a new password`)
          return seeOther('/operators')
        } catch (error) {
          if (!(error instanceof RefusalError) || error.code === 'forbidden') throw error
          return onePage(site, request, params.name, error)
        }
      },
      { params: NAME, body: t.Object(PASSWORDS) },
    )
    .post(
      '/:name/remove',
      ({ request, params }) => {
        try {
          admin.removeOperator(guard.authorOf(request), params.name)
          flashes.add(guard.visitOf(request).session, `${params.name} may no longer sign in`)
          return seeOther('/operators')
        } catch (error) {
          if (!(error instanceof RefusalError) || error.code === 'forbidden') throw error
          return onePage(site, request, params.name, error)
        }
      },
      { params: NAME },
    )
}

/** Operators, and the tokens of scripts. */
export function operatorsPage(
  site: Site,
  request: Request,
  { typed = BLANK, tokens = NO_TOKEN }: { readonly typed?: Typed; readonly tokens?: TokenSheet },
): Response {
  const visit = site.guard.visitOf(request)
  const rows = site.admin.operators()
  const nowMs = site.clock.wallMs()
  const main = html`<div class="head"><h1>Operators</h1><p>${counted(rows.length, 'person', 'people')} may sign in</p></div>
<div class="main-aside"><div class="stack"><section class="card" id="list" aria-label="Operators"><div class="scroll"><table><thead><tr><th scope="col">Name</th><th scope="col">Role</th><th scope="col">Last seen</th><th scope="col">Added</th><th scope="col"><span class="sr">Actions</span></th></tr></thead><tbody>${rows.map(
    (row) =>
      html`<tr><td><b>${row.name}</b>${row.name === visit.author?.name ? html` <small>you</small>` : ''}</td><td>${row.role === 'admin' ? badge('info', 'Admin') : badge('none', 'Viewer')}</td><td>${row.lastSeenMs === null ? 'never' : longTime(row.lastSeenMs, nowMs)}</td><td>${longTime(row.addedMs, nowMs)}</td><td class="num">${mayAct(visit) ? html`<a class="btn small" href="/operators/${encodeURIComponent(row.name)}">Edit</a>` : ''}</td></tr>`,
  )}</tbody></table></div></section>
${tokensList(site, visit)}</div>
${mayChange(site, visit) ? html`<div class="stack">${addForm(visit, typed)}${tokenCard(visit, tokens)}</div>` : ''}</div>`
  return shell(site, visit, {
    title: 'Operators',
    at: 'operators',
    main,
    status: typed.refusal === null && tokens.refusal === null ? 200 : 422,
  })
}

function addForm(visit: Visit, { name, role, refusal }: Typed): Html {
  const wrong = (field: string) =>
    refusal?.field === field ? html` aria-invalid="true" aria-describedby="wrong"` : ''
  const pick = (value: string, words: string) =>
    html`<label class="pick"><input type="radio" name="role" value="${value}"${role === value ? html` checked` : ''}> ${words}</label>`
  return html`<form class="card form" method="post" action="/operators" aria-labelledby="add">${csrf(visit)}<header><h2 id="add">Add an operator</h2></header><div class="body stack">
${refusal === null ? '' : html`<div id="wrong">${note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)}</div>`}
<label>Name<input name="name" value="${name}" required maxlength="200" autocomplete="off" autocapitalize="off" spellcheck="false"${wrong('name')}></label>
<label>Password<input name="password" type="password" required maxlength="1000" autocomplete="new-password"${wrong('password')}></label>
<label>Password again<input name="again" type="password" required maxlength="1000" autocomplete="new-password"${wrong('again')}></label>
<div class="stack">${pick('admin', 'Admin: may look and change')}${pick('viewer', 'Viewer: may look')}</div>
<div class="acts"><button class="btn primary">Add</button></div></div></form>`
}

function onePage(
  site: Site,
  request: Request,
  name: string,
  refusal: RefusalError | null,
): Response {
  const visit = site.guard.visitOf(request)
  const row = site.admin.operators().find((one) => one.name === name)
  if (row === undefined) {
    throw new RefusalError(
      'notFound',
      'name',
      `There is no operator ${name}.`,
      'See the list of operators.',
    )
  }
  const path = `/operators/${encodeURIComponent(name)}`
  const wrong = (field: string) =>
    refusal?.field === field ? html` aria-invalid="true" aria-describedby="wrong"` : ''
  const main = html`<div class="head"><div><small><a href="/operators">Operators</a></small><h1>${name}</h1></div></div>
${refusal === null ? '' : html`<div id="wrong">${note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)}</div>`}
<div class="cols"><form class="card form" method="post" action="${path}/password" aria-labelledby="pw">${csrf(visit)}<header><h2 id="pw">New password</h2></header><div class="body stack"><p class="muted">${name} is signed out everywhere.</p>
<label>Password<input name="password" type="password" required maxlength="1000" autocomplete="new-password"${wrong('password')}></label>
<label>Password again<input name="again" type="password" required maxlength="1000" autocomplete="new-password"${wrong('again')}></label>
<div class="acts"><button class="btn primary">Set the password</button></div></div></form>
<form class="card form" method="post" action="${path}/remove" aria-labelledby="rm">${csrf(visit)}<header><h2 id="rm">Remove ${name}</h2></header><div class="body stack"><p class="muted">${name} is signed out at once and cannot sign in again. What ${name} did stays under Changes.</p><div class="acts"><button class="btn danger">Remove</button></div></div></form></div>`
  return shell(site, visit, {
    title: name,
    at: 'operators',
    main,
    status: refusal === null ? 200 : 422,
  })
}
