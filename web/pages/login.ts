/** Sign in, sign out, own account, light or dark. */
import { Elysia, t } from 'elysia'
import { RefusalError } from '../../src/base/errors.ts'
import { type Html, html, safePath, seeOther } from '../html.ts'
import { csrf } from '../parts/forms.ts'
import { note } from '../parts/marks.ts'
import { door, shell } from '../parts/shell.ts'
import type { Site } from '../site.ts'

const NAME = t.String({ maxLength: 200 })
const PASSWORD = t.String({ maxLength: 1_000 })

export function loginPages(site: Site) {
  const { admin, guard } = site
  return new Elysia()
    .get(
      '/login',
      ({ request, query }) => {
        if (admin.needsSetup()) return seeOther('/setup')
        const visit = guard.visitOf(request)
        if (visit.author !== null) return seeOther(safePath(query.next, '/'))
        return loginDoor(site, request, { name: '', next: query.next ?? '', refusal: null })
      },
      { query: t.Object({ next: t.Optional(t.String({ maxLength: 2_000 })) }) },
    )
    .post(
      '/login',
      async ({ request, body }) => {
        const next = body.next ?? ''
        try {
          const { ip } = guard.visitOf(request).client
          const entered = await admin.login(body.name, body.password, ip)
          const answer = seeOther(safePath(next, '/'))
          answer.headers.append('set-cookie', guard.cookie(entered.session))
          return answer
        } catch (error) {
          if (!(error instanceof RefusalError)) throw error
          return loginDoor(site, request, { name: body.name, next, refusal: error })
        }
      },
      {
        body: t.Object({
          name: NAME,
          password: PASSWORD,
          next: t.Optional(t.String({ maxLength: 2_000 })),
        }),
      },
    )
    .post('/logout', ({ request }) => {
      const { session } = guard.visitOf(request)
      if (session !== null) admin.logout(session)
      const answer = seeOther('/login')
      answer.headers.append('set-cookie', guard.goodbye())
      return answer
    })
    .post(
      '/theme',
      ({ request, body }) => {
        const from = URL.parse(request.headers.get('referer') ?? '')
        const answer = seeOther(
          safePath(from === null ? undefined : from.pathname + from.search, '/'),
        )
        answer.headers.append('set-cookie', guard.themeCookie(body.theme))
        return answer
      },
      { body: t.Object({ theme: t.Union([t.Literal('light'), t.Literal('dark')]) }) },
    )
    .get('/account', ({ request }) => accountPage(site, request, null))
    .post(
      '/account/password',
      async ({ request, body }) => {
        const author = guard.authorOf(request)
        const { session, client } = guard.visitOf(request)
        try {
          if (session === null) throw noAccount()
          // Whoever finds an unlocked screen shall not take the account with it.
          const again = await admin.login(author.name, body.old, client.ip)
          admin.logout(again.session)
          mustMatch(body.password, body.again)
          await admin.changePassword(author, author.name, body.password)
          const entered = await admin.login(author.name, body.password, client.ip)
          site.flashes.add(entered.session, 'Your password is changed')
          const answer = seeOther('/account')
          answer.headers.append('set-cookie', guard.cookie(entered.session))
          return answer
        } catch (error) {
          if (!(error instanceof RefusalError)) throw error
          return accountPage(site, request, error)
        }
      },
      { body: t.Object({ old: PASSWORD, password: PASSWORD, again: PASSWORD }) },
    )
}

function noAccount(): RefusalError {
  return new RefusalError(
    'invalid',
    null,
    'The control socket has no password.',
    'Sign in as an operator.',
  )
}

export function mustMatch(password: string, again: string): void {
  if (password === again) return
  throw new RefusalError(
    'invalid',
    'again',
    'The two passwords differ.',
    'Type the same one twice.',
  )
}

type Attempt = {
  readonly name: string
  readonly next: string
  readonly refusal: RefusalError | null
}

function loginDoor(site: Site, request: Request, { name, next, refusal }: Attempt): Response {
  const status = refusal === null ? 200 : refusal.code === 'locked' ? 429 : 401
  const main = html`<section class="card"><div class="body first">
<form method="post" action="/login">
<h1>Sign in to ${site.nodeName}</h1>
${refusal === null ? '' : note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)}
<input type="hidden" name="next" value="${next}">
<label>Name<input name="name" value="${name}" autocomplete="username" autofocus required maxlength="200" autocapitalize="off" spellcheck="false"></label>
<label>Password<input name="password" type="password" autocomplete="current-password" required maxlength="1000"></label>
<button class="btn primary">Sign in</button>
</form></div></section>`
  return door(site, site.guard.visitOf(request), { title: 'Sign in', main, status })
}

function accountPage(site: Site, request: Request, refusal: RefusalError | null): Response {
  const visit = site.guard.visitOf(request)
  const author = site.guard.authorOf(request)
  const old = refusal?.code === 'unauthenticated' || refusal?.code === 'locked'
  const field = (name: string, label: string, hint: string, auto: string, wrong: boolean): Html =>
    html`<div class="field"><div><label for="${name}">${label}</label><p>${hint}</p></div><div class="in"><input class="wide" id="${name}" name="${name}" type="password" autocomplete="${auto}" required maxlength="1000"${wrong ? html` aria-invalid="true" aria-describedby="${name}-e"` : ''}>${wrong && refusal !== null ? html`<p class="err" id="${name}-e">${old ? 'This is not your password.' : refusal.message} ${old ? '' : refusal.advice}</p>` : ''}</div></div>`
  const main = html`<div class="head"><h1>${author.name}</h1><p>${author.role === 'admin' ? 'You may look and change' : 'You may look and not change anything'}</p></div>
<form class="card" method="post" action="/account/password" aria-labelledby="pw">${csrf(visit)}
<header><h2 id="pw">Change your password</h2></header><input hidden autocomplete="username" value="${author.name}" readonly>
${field('old', 'Password now', 'So that nobody takes your account at an unlocked screen.', 'current-password', old)}
${field('password', 'New password', 'A long sentence is better than a short riddle.', 'new-password', refusal !== null && !old && refusal.field !== 'again')}
${field('again', 'New password again', 'You are signed out everywhere else.', 'new-password', refusal?.field === 'again')}
<div class="field"><span></span><div class="acts"><button class="btn primary">Change the password</button></div></div>
</form>`
  return shell(site, visit, {
    title: 'Your account',
    at: 'account',
    main,
    status: refusal === null ? 200 : 422,
  })
}
