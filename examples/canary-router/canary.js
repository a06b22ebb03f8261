// A router that sends chosen clients to the instances with a canary's tag. What it exports are the interfaces of the
// world `routing` in wit/plugin.wit, in JavaScript's spelling.

const DEFAULTS = { clients: [], tag: 'canary' };

let settings = DEFAULTS;
// The services that have an instance with the tag now.
let canaries = new Set();
let services = [];

export const lifecycle = {
  metadata: () => 'name = "canary-router"\nversion = "0.1.0"\nsummary = "Chosen clients go to the canary"\n',

  // Throwing a list of issues refuses the configuration, and the one before stays in force.
  configure(json) {
    const read = { ...DEFAULTS, ...JSON.parse(json) };
    const issues = Object.keys(read)
      .filter((key) => !(key in DEFAULTS))
      .map((key) => ({ path: `/${key}`, message: 'There is no such setting.' }));
    if (!Array.isArray(read.clients) || read.clients.some((client) => typeof client !== 'string')) {
      issues.push({ path: '/clients', message: 'This must be a list of names; * stands for any text.' });
    }
    if (typeof read.tag !== 'string') issues.push({ path: '/tag', message: 'This must be a tag.' });
    if (issues.length > 0) throw issues;
    settings = { tag: read.tag, clients: read.clients.map(pattern) };
    findCanaries();
  },

  selfTest() {
    if (!pattern('ci-*').test('ci-7') || pattern('ci-*').test('xci-7')) throw 'patterns do not match as they should';
  },
};

export const catalog = {
  onCatalog(all) {
    services = all.map(({ name, tags }) => ({ name, tags }));
    findCanaries();
  },
};

export const router = {
  route({ service, client }) {
    // A tag that no instance has would be an error for the caller.
    if (!canaries.has(service) || !settings.clients.some((one) => one.test(client))) {
      return { verdict: { tag: 'pass' }, why: '' };
    }
    return { verdict: { tag: 'forward', val: { service, tag: settings.tag } }, why: `${client} tries the canary` };
  },
};

function findCanaries() {
  canaries = new Set(services.filter(({ tags }) => tags.includes(settings.tag)).map(({ name }) => name));
}

function pattern(text) {
  const literal = (part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^${text.split('*').map(literal).join('.*')}$`);
}
