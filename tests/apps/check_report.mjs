// Looks at reports as a reader does: in Chromium, at 1280 and 390 pixels, in light and dark.
//   node check_report.mjs GOSHAWK RESULTS CHROMIUM [SCREENSHOTS]
// GOSHAWK is the program, RESULTS a directory of run directories. Needs nothing but Node.js and Chromium, which it
// speaks to over a pipe. check_report.sh finds both.
import { spawn, execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [goshawk, results, chromium, screenshots] = process.argv.slice(2);
const scratch = mkdtempSync(join(tmpdir(), 'goshawk-report-'));
const problems = [];

// ── the runs ──

const readJson = (...path) => JSON.parse(readFileSync(join(...path), 'utf8'));
const writeJson = (value, ...path) => writeFileSync(join(...path), JSON.stringify(value));

/// A run with all rows there can be, a measured spectrum and landscape, and long names.
function crowdedRun() {
  const run = join(scratch, 'crowded');
  cpSync(join(results, 'synthetic-resnet20'), run, { recursive: true });
  const slugs = ['hawq-v3', 'mpqco', 'exact-quadratic', 'joint', 'delta-norm', 'snr', 'loss-change',
                 'hawq-reversed-bits', 'hawq-reversed-order', 'hawq-at-once', 'dnas-16.6', 'dnas-11.6'];
  const bits = readJson(run, 'bits.json'), table = readJson(run, 'table.json');
  const model = table.rows.find(row => row.row === 'hawq');
  let log = readFileSync(join(run, 'log.jsonl'), 'utf8');
  const epochs = log.split('\n').filter(line => line.includes('"row":"hawq"'));
  for (const slug of slugs) {
    bits[slug] = bits.hawq;
    table.rows.push({ ...model, row: slug, name: `${slug[0].toUpperCase()}${slug.slice(1).replaceAll('-', ' ')}` });
    log += epochs.map(line => line.replace('"row":"hawq"', `"row":"${slug}"`) + '\n').join('');
    cpSync(join(run, 'order-hawq.json'), join(run, `order-${slug}.json`));
  }
  writeJson(bits, run, 'bits.json');
  writeJson(table, run, 'table.json');
  writeFileSync(join(run, 'log.jsonl'), log);

  const steps = Array.from({ length: 11 }, (_, i) => (i - 5) / 5);
  const density = name => ({ curve: name, smoothing: 0.2, lowest: -1, highest: 60, probes: 8 });
  const trace = { estimate: 12, standard_error: 2, image_error: 3 };
  const names = bits.hawq.layers.map(layer => layer.name);
  mkdirSync(join(run, 'curvature'));
  writeJson({
    model: 'resnet20', images: 256, loss: 0.1,
    layers: names.map(name => ({ name, parameters: 1000, trace, top_eigenvalues: [4], density: density('density.csv') })),
    network: {
      parameters: 20000, density: density('density.csv'),
      landscape: {
        plane: 'landscape-plane.csv', steps,
        eigenvector: { eigenvalue: 60, losses: steps.map(s => 0.1 + s * s) },
        random: { losses: steps.map(s => 0.1 + 30 * s * s) },
      },
    },
  }, run, 'curvature', 'curvature.json');
  const grid = Array.from({ length: 600 }, (_, i) => i / 10 - 1);
  const bell = (x, at) => Math.exp(-(((x - at) / 0.4) ** 2));
  writeFileSync(join(run, 'curvature', 'density.csv'), 'eigenvalue,density,standard_error\n' +
    grid.map(x => { const d = bell(x, 0) + 1e-4 * bell(x, 41); return `${x},${d},${d / 10}\n`; }).join(''));
  writeFileSync(join(run, 'curvature', 'landscape-plane.csv'), 'eigenvector,random,loss\n' +
    steps.flatMap(a => steps.map(b => `${a},${b},${0.1 + a * a + 30 * b * b}\n`)).join(''));
  return run;
}

/// Of one model, as goshawk quantize leaves it.
function modelRun() {
  const from = join(results, 'synthetic-resnet20'), run = join(scratch, 'model');
  const row = readJson(from, 'table.json').rows.find(line => line.row === 'hawq-v2');
  const evaluation = { accuracy: 0.9, correct: 900, images: 1000, loss: 0.5 };
  mkdirSync(run);
  writeJson({ program: 'goshawk quantize', model: 'resnet20', data: '/elsewhere/pictures', cost: 'hawq-v2', epochs: 20 },
            run, 'config.json');
  writeJson({ ...evaluation, accuracy: 0.92, correct: 920 }, run, 'baseline.json');
  writeJson({ ...evaluation, weight_compression: 13.1, activation_compression: 8, packed_bytes: row.packed_bytes },
            run, 'result.json');
  writeJson(readJson(from, 'bits.json')['hawq-v2'], run, 'bits.json');
  cpSync(join(from, 'costs-hawq-v2.json'), join(run, 'costs.json'));
  cpSync(join(from, 'order-hawq-v2.json'), join(run, 'order-model.json'));
  writeFileSync(join(run, 'log.jsonl'), readFileSync(join(from, 'log.jsonl'), 'utf8').split('\n')
    .filter(line => line.includes('"row":"hawq-v2"'))
    .map(line => line.replace('"row":"hawq-v2"', '"row":"model"') + '\n').join(''));
  return run;
}

/// Of predict_loss, with as many draws, sets of widths and sensitivities as it has by default, over many orders of
/// magnitude and with values that have no logarithm.
function predictionRun() {
  const run = join(scratch, 'predictions'), draws = 200;
  const layers = readJson(results, 'synthetic-resnet20', 'bits.json').hawq.layers.map(layer => layer.name);
  let state = 1;
  const random = () => (state = (state * 16807) % 2147483647) / 2147483647;
  const list = f => Array.from({ length: draws }, (_, d) => f(d));
  const correlation = (key, value) => ({ [key]: value, low: value - 0.3, high: Math.min(value + 0.1, 1) });
  const costs = ['delta-norm', 'snr', 'loss-change', 'hawq', 'hawq-s', 'hawq-v2', 'fisher', 'exact-quadratic',
                 'exact-taylor', 'joint'];
  const sets = {};
  for (const widths of ['4,6,8', '2,3,4,6,8', '3,4,6', '2,3,4']) {
    const choices = widths.split(',').map(Number);
    const assignments = list(() => layers.map(() => choices[Math.floor(random() * choices.length)]));
    const truth = list(() => widths === '4,6,8' ? random() / 1e4 - 2e-5 : 10 ** (4 * random() - 3));
    const methods = {};
    for (const [m, name] of ['mean-bits', ...costs, 'true-on-calibration'].entries()) {
      methods[name] = { held_out: correlation('spearman', 0.95 - m / 8), calibration: correlation('spearman', 0.9 - m / 9) };
      if (!costs.includes(name)) continue;
      methods[name].behind_best = correlation('difference', m / 8 - 0.1);
      methods[name].predicted = truth.map((value, d) => name === 'joint' && d % 20 === 0 ? -value : value * 10 ** (m - 5 + random()));
    }
    sets[widths] = {
      bytes: list(d => 60000 + 100 * d), mean_bits: list(d => choices[0] + d / 100), true_held_out: truth,
      true_calibration: truth.map(value => value * (0.5 + random())), widths_of_layers: assignments,
      best: costs[0], methods,
    };
  }
  mkdirSync(run);
  writeJson({ program: 'predict_loss', model: 'resnet20', data: '/elsewhere/pictures', widths: Object.keys(sets) },
            run, 'config.json');
  writeJson({
    format: 'goshawk-predictions-1', model: 'resnet20', calibration_images: 512, held_out_images: 2048,
    calibration_split: 'train', held_out_split: 'test', calibration_loss: 0.006, held_out_loss: 0.7, interval: 0.95,
    layers, sets,
  }, run, 'predictions.json');
  return run;
}

// ── the browser ──

const profile = join(scratch, 'profile');
const browser = spawn(chromium, ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
  '--no-first-run', '--hide-scrollbars', '--remote-debugging-pipe', `--user-data-dir=${profile}`],
  { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
const waiting = new Map();
let listener = () => {}, next = 1, buffer = '', session;
browser.on('exit', status => { for (const { reject } of waiting.values()) reject(new Error(`Chromium ended with ${status}`)); });
browser.stdio[4].setEncoding('utf8').on('data', data => {
  const messages = (buffer + data).split('\0');
  buffer = messages.pop();
  for (const text of messages) {
    const message = JSON.parse(text), promise = waiting.get(message.id);
    if (!promise) { listener(message); continue; }
    waiting.delete(message.id);
    message.error ? promise.reject(new Error(message.error.message)) : promise.resolve(message.result);
  }
});
const send = (method, params = {}) => new Promise((resolve, reject) => {
  const id = next++;
  waiting.set(id, { resolve, reject });
  browser.stdio[3].write(JSON.stringify({ id, method, params, sessionId: session }) + '\0');
});
const evaluate = async (f, ...values) => {
  const { result, exceptionDetails } = await send('Runtime.evaluate',
    { expression: `(${f})(${values.map(v => JSON.stringify(v)).join(',')})`, returnByValue: true, awaitPromise: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
};
const key = async name => {
  for (const type of ['keyDown', 'keyUp']) await send('Input.dispatchKeyEvent', { type, key: name, code: name });
};
const move = (x, y) => send('Input.dispatchMouseEvent', { type: 'mouseMoved', x, y });

// ── what must hold ──

/// Runs in the page: what is wrong with the layout.
function layoutProblems(width) {
  const wrong = [], page = document.documentElement;
  const seen = element => element.getClientRects().length > 0 && getComputedStyle(element).visibility !== 'hidden';
  const apart = (a, b, slack) => a.right <= b.left + slack || b.right <= a.left + slack ||
                                 a.bottom <= b.top + slack || b.bottom <= a.top + slack;
  const name = element => element.id || element.textContent.slice(0, 30);
  for (const fold of document.querySelectorAll('details')) fold.open = true;
  if (page.scrollWidth > width) wrong.push(`the page is ${page.scrollWidth} wide`);
  const blocks = [...document.querySelectorAll('h1,h2,nav a,p,li,figure,.box,dl.tiles div')].filter(seen);
  blocks.forEach((block, k) => {
    const at = block.getBoundingClientRect();
    if (at.left < -0.5 || at.right > width + 0.5) wrong.push(`${name(block)} leaves the window`);
    if (!block.matches('.scroll') && !block.querySelector('.scroll') && block.scrollWidth > block.clientWidth + 1 && block.clientWidth > 0)
      wrong.push(`the content of ${name(block)} is wider than it`);
    for (const other of blocks.slice(k + 1)) {
      if (!block.contains(other) && !apart(at, other.getBoundingClientRect(), 1)) wrong.push(`${name(block)} overlaps ${name(other)}`);
    }
  });
  let figures = 0;
  for (const svg of document.querySelectorAll('svg.gf')) {
    if (!seen(svg)) continue;
    ++figures;
    const frame = svg.getBoundingClientRect(), scale = frame.width / svg.viewBox.baseVal.width;
    if (scale * 11 < 10) wrong.push(`letters in ${name(svg.parentElement)} are ${scale * 11} px high`);
    const texts = [...svg.querySelectorAll('text')];
    texts.forEach((text, k) => {
      const at = text.getBoundingClientRect();
      if (at.left < frame.left - 1 || at.right > frame.right + 1 || at.top < frame.top - 1 || at.bottom > frame.bottom + 1)
        wrong.push(`"${text.textContent}" leaves ${name(svg.parentElement)}`);
      const slanted = element => element.getAttribute('transform')?.includes('rotate');
      for (const other of texts.slice(k + 1)) {
        // Boxes of slanted texts overlap where the texts do not: their lines must be far enough apart.
        const there = other.getBoundingClientRect();
        const free = slanted(text) && slanted(other) ? Math.abs(at.left - there.left) * Math.SQRT1_2 > 9.5 : apart(at, there, 2.5);
        if (!free) wrong.push(`"${text.textContent}" and "${other.textContent}" overlap in ${name(svg.parentElement)}`);
      }
    });
  }
  if (figures === 0) wrong.push('there is no figure');
  return wrong;
}

/// Runs in the page: brings a figure into view and says where its points are and what they should say.
async function pointsOf(figure) {
  const svg = [...document.querySelectorAll(`#${CSS.escape(figure)} svg`)]
    .find(s => s.getClientRects().length > 0 && s.querySelector('.gf-tip'));
  const notes = document.querySelector(`#${CSS.escape(figure)} .notes`);
  svg.scrollIntoView({ block: 'center', behavior: 'instant' });
  // The event of the scrolling, which hides tips, comes with the next frame.
  for (let k = 0; k < 2; ++k) await new Promise(requestAnimationFrame);
  return [...svg.querySelectorAll('.gf-tip')].map(point => {
    const at = point.getBoundingClientRect();
    const note = point.dataset.note ? '\n' + notes.children[point.dataset.note].textContent : '';
    return { x: at.left + at.width / 2, y: at.top + at.height / 2, label: point.getAttribute('aria-label') + note };
  });
}

function tipNow() {
  const tip = document.getElementById('tip'), at = tip.getBoundingClientRect();
  const inside = at.left >= 0 && at.top >= 0 && at.right <= innerWidth && at.bottom <= innerHeight;
  return tip.hidden ? null : { text: tip.textContent, inside };
}

/// `kind`: of the figures whose points are assignments.
async function checkTips(complain, kind) {
  const figures = await evaluate(k => [...document.querySelectorAll(`figure[id^=figure-${k}]`)].map(f => f.id), kind);
  if (figures.length === 0) complain(`there is no figure ${kind}`);
  for (const figure of figures) {
    const points = await evaluate(pointsOf, figure);
    const labels = points.map(point => point.label);
    for (const point of [points[0], points[points.length >> 1], points.at(-1)]) {
      await move(point.x, point.y);
      const tip = await evaluate(tipNow);
      if (!tip) complain(`${figure}: no tip at a point`);
      else if (!labels.includes(tip.text) || !/\d bits: /.test(tip.text)) complain(`${figure}: the tip says "${tip.text}"`);
      else if (!tip.inside) complain(`${figure}: the tip leaves the window`);
    }
    if ((await evaluate(tipNow))?.text !== labels.at(-1)) complain(`${figure}: hovering the last point shows another`);
    await move(1, 1);
    if (await evaluate(tipNow)) complain(`${figure}: the tip stays`);

    await evaluate(id => [...document.querySelectorAll(`#${CSS.escape(id)} [tabindex="0"]`)]
      .find(point => point.getClientRects().length > 0).focus({ preventScroll: true }), figure);
    if ((await evaluate(tipNow))?.text !== labels[0]) complain(`${figure}: focus does not show the first point`);
    await key('ArrowRight');
    await key('ArrowRight');
    if ((await evaluate(tipNow))?.text !== labels[2]) complain(`${figure}: arrow keys do not go to the third point`);
    await key('ArrowLeft');
    if ((await evaluate(tipNow))?.text !== labels[1]) complain(`${figure}: the left arrow does not go back`);
    await key('Escape');
    if (await evaluate(tipNow)) complain(`${figure}: Escape does not hide the tip`);
    await evaluate(() => document.activeElement.blur());
  }
}

/// Names of the figures whose points are assignments; of most runs the frontiers.
const assignments = { model: '', predictions: 'predicted' };

async function checkPage(run, file, width, scheme) {
  const complain = text => problems.push(`${run}, ${width} px, ${scheme}: ${text}`);
  const url = pathToFileURL(file).href;
  let loaded;
  const ready = new Promise(resolve => { loaded = resolve; });
  listener = ({ method, params }) => {
    if (method === 'Page.loadEventFired') loaded();
    if (method === 'Runtime.exceptionThrown') complain(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === 'Runtime.consoleAPICalled') complain(`console.${params.type}`);
    if (method === 'Log.entryAdded') complain(params.entry.text);
    if (method === 'Network.requestWillBeSent' && params.request.url !== url && !params.request.url.startsWith('data:'))
      complain(`asks for ${params.request.url}`);
  };
  await send('Emulation.setDeviceMetricsOverride', { width, height: 900, deviceScaleFactor: 1, mobile: false });
  await send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
  await send('Page.navigate', { url });
  await ready;
  const kind = assignments[run] ?? 'pareto';
  if (kind) await checkTips(complain, kind);
  if (screenshots) {
    mkdirSync(screenshots, { recursive: true });
    const { data } = await send('Page.captureScreenshot', { captureBeyondViewport: true });
    writeFileSync(join(screenshots, `${run}-${width}-${scheme}.png`), Buffer.from(data, 'base64'));
  }
  for (const wrong of await evaluate(layoutProblems, width)) complain(wrong);
  const ground = await evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number)[0]);
  if ((scheme === 'dark') !== ground < 128) complain(`the ground is ${ground}`);
}

// ── all of it ──

try {
  const runs = { crowded: crowdedRun(), model: modelRun(), predictions: predictionRun() };
  for (const name of ['synthetic-resnet20', 'cifar10-resnet20']) {
    if (existsSync(join(results, name))) runs[name] = join(results, name);
  }
  const { targetId } = await send('Target.createTarget', { url: 'about:blank' });
  session = (await send('Target.attachToTarget', { targetId, flatten: true })).sessionId;
  for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await send(`${domain}.enable`);
  for (const [name, run] of Object.entries(runs)) {
    const out = join(scratch, 'reports', name);
    execFileSync(goshawk, ['report', run, '--out', out]);
    const bytes = statSync(join(out, 'report.html')).size;
    if (bytes >= 2_000_000) problems.push(`${name}: the page has ${bytes} bytes, 2 MB or more`);
    for (const width of [1280, 390]) {
      for (const scheme of ['light', 'dark']) await checkPage(name, join(out, 'report.html'), width, scheme);
    }
  }
} catch (error) {
  problems.push(String(error.stack ?? error));
} finally {
  const ended = new Promise(resolve => browser.on('exit', resolve));
  browser.kill();
  await ended;
  rmSync(scratch, { recursive: true, force: true, maxRetries: 5 });
}
const distinct = [...new Set(problems)];
for (const problem of distinct.slice(0, 60)) console.log(problem);
console.log(distinct.length === 0 ? 'reports are as they should be in Chromium' : `${distinct.length} problems`);
process.exit(distinct.length === 0 ? 0 : 1);
